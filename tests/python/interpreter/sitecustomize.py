# Found by every Python that starts with this folder in PYTHONPATH (the documentation of the module
# `site`): prints which interpreter that is, instead of running the program.
import os
import sys

print(sys.executable, flush=True)
os._exit(0)
