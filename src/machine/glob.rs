//! Patterns of `KEYS`, `SCAN MATCH` and `HSCAN MATCH`: `*`, `?`, `[a-c]`, `[^x]`, `\` to quote. As Redis' `stringmatchlen`, with its
//! corners, but in at most pattern times text steps: it goes back to the last star only, and never deeper.

/// Whether the whole text follows the pattern. Bytes, not characters; upper and lower case differ.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Redis asks nothing of a lone star, and anything but an empty pattern of an empty text.
    if pattern == b"*" || text.is_empty() {
        return pattern == b"*" || pattern.is_empty();
    }
    let (mut at, mut position) = (0, 0);
    // Where to go on after a mismatch: behind the last star, one byte further along the text than last time.
    let mut retry: Option<(usize, usize)> = None;
    while position < text.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, position + 1));
            continue;
        }
        if let Some(next) = one(&pattern[at..], text[position]) {
            (at, position) = (at + next, position + 1);
            continue;
        }
        // A star that ends the pattern has swallowed the rest; any other swallows one byte more.
        let Some((behind, further)) = retry else {
            return false;
        };
        if behind == pattern.len() {
            return true;
        }
        (at, position, retry) = (behind, further, Some((behind, further + 1)));
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// How many bytes of the pattern stand for one byte, if they admit this one.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ..] => {
            let (admits, length) = class(pattern, byte);
            admits.then_some(length)
        }
        [b'\\', quoted, ..] => (*quoted == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
    }
}

/// Whether the class that begins the pattern admits a byte, and how long the class is. One without `]` goes on to the end.
fn class(pattern: &[u8], byte: u8) -> (bool, usize) {
    let not = pattern.get(1) == Some(&b'^');
    let (mut at, mut admits) = (1 + usize::from(not), false);
    loop {
        match &pattern[at..] {
            [] => return (admits != not, at),
            [b'\\', quoted, ..] => {
                admits |= *quoted == byte;
                at += 2;
            }
            [b']', ..] => return (admits != not, at + 1),
            [from, b'-', to, ..] => {
                // Signed, as `char` is where Redis is built; either end may come first.
                let (from, to, byte) = (*from as i8, *to as i8, byte as i8);
                admits |= (from.min(to)..=from.max(to)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                admits |= *literal == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_mean_what_they_mean_to_redis() {
        for (pattern, text) in [
            ("*", ""),
            ("", ""),
            ("*", "x"),
            ("**", "x"),
            ("a*", "a"),
            ("a**", "a"),
            ("*a", "ba"),
            ("h?llo", "hello"),
            ("h*llo", "heeeello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("h[b-a]llo", "hallo"),
            ("[abc", "c"),
            ("[^", "x"),
            ("\\*", "*"),
            ("[\\]]", "]"),
            ("[\\", "\\"),
            ("\\", "\\"),
            ("[a-]", "`"),
            ("*b*d", "abcbdd"),
            ("a*b?c", "a1b2b3c"),
            ("[a-\u{7f}]", "z"),
        ] {
            assert!(matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("**", ""),
            ("?", ""),
            ("", "x"),
            ("a", "b"),
            ("a*b", "a"),
            ("h[^e]llo", "hello"),
            ("[", "["),
            ("[]", "]"),
            ("[a-", "b"),
            ("a?", "a"),
            ("*b*d", "abc"),
            ("A", "a"),
            ("\\a", "\\a"),
            ("ab", "abc"),
            ("[a", "ab"),
        ] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_multiply() {
        // With one recursion per star this would take longer than the universe has lasted.
        let pattern = "a*".repeat(200) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(10_000).as_bytes()));
    }
}
