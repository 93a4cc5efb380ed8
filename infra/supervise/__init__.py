"""`./justw run FLOW --processes N`: several processes of one dataflow, started, watched and stopped as one."""
