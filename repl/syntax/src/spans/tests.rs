//! Colours of small texts, written as a letter a character.

use super::{Class, spans};

fn letters(source: &str) -> String {
    let mut letters: Vec<char> = source.chars().map(|_| ' ').collect();
    for span in spans(source) {
        let letter = match span.class {
            Class::Keyword => 'k',
            Class::String => 's',
            Class::Number => 'n',
            Class::Comment => 'c',
            Class::Definition => 'D',
            Class::Builtin => 'b',
            Class::Name => 'w',
            Class::Decorator => '@',
            Class::Bracket => '(',
            Class::Operator => 'o',
            Class::Unknown => '?',
        };
        let start = source[..span.range.start].chars().count();
        let length = source[span.range].chars().count();
        letters[start..start + length].fill(letter);
    }
    letters.into_iter().collect()
}

#[test]
fn each_class() {
    assert_eq!(letters("def f(a=1): # é"), "kkk D(won(o ccc");
    assert_eq!(letters("class é(int): pass"), "kkkkk D(bbb(o kkkk");
    assert_eq!(letters("@a.b(c)\nx"), "@@@@(w( w");
    assert_eq!(letters("x @ y; @z"), "w o wo @@");
    assert_eq!(letters("a.print, print, None"), "wowwwwwo bbbbbo kkkk");
    assert_eq!(letters("f'a{len(b)!r:>{c}}' $"), "sss(bbb(w(owos(w((s ?");
}

#[test]
fn soft_keywords() {
    assert_eq!(letters("match x:\n case [y]: z"), "kkkkk wo  kkkk (w(o w");
    assert_eq!(letters("match = case.type"), "wwwww o wwwwowwww");
    assert_eq!(letters("type X = type(x)"), "kkkk D o bbbb(w(");
}

#[test]
fn while_it_is_typed() {
    assert_eq!(letters("x = 'abc"), "w o ssss");
    assert_eq!(letters("x = f'a{b"), "w o sss(w");
    assert_eq!(letters("'''a\n# b"), "ssssssss");
    assert_eq!(letters("def"), "kkk");
}
