# binds: a
from os import *
a = 1
