//! How the next line begins. The guest has the same rule.

use crate::whitespace::{is_blank, is_space};

const STEP: usize = 4;
const ENDS: [&str; 5] = ["return", "pass", "break", "continue", "raise"];

/// The white space that the line after `source` begins with.
pub(super) fn after(source: &str) -> String {
    let last = source
        .split('\n')
        .rfind(|line| !is_blank(line))
        .unwrap_or_default();
    let indent: Vec<char> = last.chars().take_while(|c| is_space(*c)).collect();
    let text = last
        .split('#')
        .next()
        .unwrap_or(last)
        .trim_end_matches(is_space);
    let mut next: String = indent.iter().collect();
    if text.ends_with([':', '(', '[', '{']) {
        next.push_str(&" ".repeat(STEP));
    } else if text
        .split(is_space)
        .find(|word| !word.is_empty())
        .is_some_and(|word| ENDS.contains(&word))
    {
        next = indent
            .iter()
            .take(indent.len().saturating_sub(STEP))
            .collect();
    }
    next
}
