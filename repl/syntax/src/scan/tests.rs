//! Tokens of small texts, written as `kind:text`.

use super::{Kind, scan};

fn cut(text: &str) -> String {
    let tokens: Vec<String> = scan(text)
        .tokens
        .iter()
        .map(|token| {
            let letter = match token.kind {
                Kind::Word => 'w',
                Kind::Number => 'n',
                Kind::String => 's',
                Kind::InterpolatedStart => 'f',
                Kind::Comment => 'c',
                Kind::Newline => 'N',
                Kind::Operator => 'o',
                Kind::Open => '<',
                Kind::Close => '>',
                Kind::Unknown => '?',
            };
            format!("{letter}:{}", text[token.range.clone()].escape_debug())
        })
        .collect();
    tokens.join(" ")
}

#[test]
fn words_numbers_signs() {
    assert_eq!(
        cut("x1=0x_fF+1_0.5e-3j"),
        "w:x1 o:= n:0x_fF o:+ n:1_0.5e-3j"
    );
    assert_eq!(cut("1if é else.5"), "n:1 w:if w:é w:else n:.5");
    assert_eq!(cut("a.b...c**=d"), "w:a o:. w:b o:... w:c o:**= w:d");
    assert_eq!(cut("a # b\n\n c"), "w:a c:# b N:\\n w:c");
    assert_eq!(cut("(\n1)\r\nx"), "<:( n:1 >:) N:\\r\\n w:x");
    assert_eq!(cut("a \\\n b $ ?"), "w:a w:b ?:$ ?:?");
}

#[test]
fn strings() {
    assert_eq!(
        cut(r#"rb'\'' "b" x"c""#),
        r#"s:rb\'\\\'\' s:\"b\" w:x s:\"c\""#
    );
    assert_eq!(cut("'a\nb"), "s:\\'a N:\\n w:b");
    assert_eq!(cut("'''a\n'b''' c"), "s:\\'\\'\\'a\\n\\'b\\'\\'\\' w:c");
    assert_eq!(cut("'a\\\nb' c"), "s:\\'a\\\\\\nb\\' w:c");
    assert!(scan("'''a\n''").open_string);
    assert!(!scan("'a").open_string);
}

#[test]
fn interpolated_strings() {
    assert_eq!(cut("f'a{b}c' d"), "f:f\\' s:a <:{ w:b >:} s:c s:\\' w:d");
    assert_eq!(
        cut("f'{{a}}{b!r:>{w}.2}'"),
        "f:f\\' s:{{a}} <:{ w:b o:! w:r o:: s:> <:{ w:w >:} s:.2 >:} s:\\'"
    );
    assert_eq!(
        cut("f'{a['b']}' c"),
        "f:f\\' <:{ w:a <:[ s:\\'b\\' >:] >:} s:\\' w:c"
    );
    assert_eq!(
        cut("f'{x:=5}{(y:=6)}'"),
        "f:f\\' <:{ w:x o:: s:=5 >:} <:{ <:( w:y o::= n:6 >:) >:} s:\\'"
    );
    assert_eq!(
        cut("f'\\N{DASH}{a}'"),
        "f:f\\' s:\\\\N{DASH} <:{ w:a >:} s:\\'"
    );
    assert_eq!(cut("f'a\nb"), "f:f\\' s:a N:\\n w:b");
    assert!(scan("f'''{a").open_string);
}
