# binds: a b c d e f g after
try:
    a = 1
    del after
except (b := ValueError) as c:
    after = 1
except TypeError:
    d = 1
else:
    e = 1
finally:
    f = 1
try:
    pass
except* OSError as g:
    pass
