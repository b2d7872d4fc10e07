"""Imported last by the server of forks: its objects are exempt from garbage collection.

So forks do not copy the pages that they share with it, and it ends at once; Python would spend a
second of the processor on its last collection.
"""

import gc

gc.freeze()
