# binds: A B a b c
@(a := decorate)
class A((b := object), metaclass=(c := type)):
    x = 1
    def f(self): pass
    class Inner: pass
    [y := 1]
    (z := 1)
    import os
    for i in x: pass
    del x


class B: pass; q = 1
