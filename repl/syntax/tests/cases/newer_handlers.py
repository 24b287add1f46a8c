# binds: a b
try: a = 1
except A, B: b = 1
