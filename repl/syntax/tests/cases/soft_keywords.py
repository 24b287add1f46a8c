# binds: match case type print _ x
match = case = 1
type = 2
print = 3
_ = 4
match(x)
match[x]
match.x
match, case
case(x)
type(x)
type.x = 1
match * x
match: int
x = match if match else case
match match:
    case case: pass
