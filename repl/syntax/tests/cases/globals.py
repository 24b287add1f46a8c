# binds: a b c d e f f1 f2 f3 g C i m
global top
def f1():
    global a, b
    a = 1
    print(b)
    b += 1
    [c_inside := 1 for _ in ()]
    def not_global():
        a2 = 1
        b = 2
    class K:
        k = 1
        global c
        c = 1


def f2():
    def deep():
        global d
        with x as d: pass
    d2 = 1
    d = 2


class C:
    global e
    e = 1
    own = 2
    def method(self):
        e2 = 1
        global f, g, i
        from x import y as f
        [g := 1 for _ in ()]
        try: pass
        except E as i: pass


def f3():
    global m
    match x:
        case [m]: pass
