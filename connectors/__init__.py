"""One file a system, named by its noun, as Bytewax sources and sinks; ``README.md`` is their contract.

Rule: imports ``schemas`` and nothing else of ours; connects in ``build_part``, never in a constructor or at import.
"""
