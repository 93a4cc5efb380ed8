"""Quick panics: ptars panics on some poison, and Rust would print, and slowly resolve, a stack each time."""

import os

os.environ["RUST_BACKTRACE"] = "0"
