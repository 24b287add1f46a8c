# binds: a b c d e f g h i k m n o
match subject:
    case a: pass
match subject:
    case [b, *c] | (b, *c): pass
    case {"k": d, **e}: pass
    case Class(f, x=g) as h: pass
    case module.value | None | -1 | 1 + 2j | "text" "more": pass
    case [_, *_]: pass
    case {**i} if (k := 1): m = 1
    case (n): pass
    case (_): o = 1
