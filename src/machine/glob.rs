//! Patterns of `KEYS`, `SCAN MATCH` and `HSCAN MATCH`: `*`, `?`, `[a-c]`, `[^x]`, `\` to quote. As Redis' `stringmatchlen`, with its
//! corners, but in at most pattern times text steps: it goes back to the last star only, and never deeper. Where those are too many it takes
//! the states that the pattern may be in 64 at a time.

/// Bytes of a pattern that a client or a script may give. The log may hold longer ones, of rules for users from before there was this bound.
pub const PATTERN_BYTES_MAX: usize = 1_024;

/// Steps for each byte of pattern and text after which the states are taken many at a time. That takes a table first, which is not worth it
/// for what is decided soon.
const STEPS_PER_BYTE: usize = 4;

/// Steps that are always taken before.
const STEPS_AT_FIRST: usize = 4_096;

/// Whether the whole text follows the pattern. Bytes, not characters; upper and lower case differ.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Redis asks nothing of a lone star, and anything but an empty pattern of an empty text.
    if pattern == b"*" || text.is_empty() {
        return pattern == b"*" || pattern.is_empty();
    }
    let (mut at, mut position) = (0, 0);
    let mut steps = STEPS_AT_FIRST + STEPS_PER_BYTE * (pattern.len() + text.len());
    // Where to go on after a mismatch: behind the last star, one byte further along the text than last time.
    let mut retry: Option<(usize, usize)> = None;
    while position < text.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, position + 1));
            continue;
        }
        let (admits, length) = one(&pattern[at..], text[position]);
        steps = steps.saturating_sub(1 + length);
        if steps == 0 && pattern.len() <= PATTERN_BYTES_MAX {
            return by_states(pattern, text);
        }
        if admits {
            (at, position) = (at + length, position + 1);
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

/// The same, by all states that the pattern may be in at once: the state of a number is that so many of its elements, stars aside, have matched.
fn by_states(pattern: &[u8], text: &[u8]) -> bool {
    const BITS: usize = u64::BITS as usize;
    let words = pattern.len() / BITS + 1;
    // Of each byte, which elements admit it; and in front of which elements a star stands: such a state stays, too.
    let mut admits = vec![0_u64; 256 * words];
    let mut stars = vec![0_u64; words];
    let (mut at, mut elements) = (0, 0);
    while at < pattern.len() {
        let (word, bit) = (elements / BITS, 1 << (elements % BITS));
        if pattern[at] == b'*' {
            stars[word] |= bit;
            at += 1;
            continue;
        }
        let mut length = 1;
        for (byte, admitted) in (0..=u8::MAX).zip(admits.chunks_exact_mut(words)) {
            let fits;
            (fits, length) = one(&pattern[at..], byte);
            admitted[word] |= if fits { bit } else { 0 };
        }
        at += length;
        elements += 1;
    }
    let mut states = vec![0_u64; words];
    states[0] = 1;
    for byte in text {
        let (admits, mut carry) = (&admits[usize::from(*byte) * words..], 0);
        for ((state, admits), stars) in states.iter_mut().zip(admits).zip(&stars) {
            let moved = *state & admits;
            *state = (moved << 1) | carry | (*state & stars);
            carry = moved >> (BITS - 1);
        }
    }
    states[elements / BITS] & (1 << (elements % BITS)) != 0
}

/// Whether the element that begins the pattern admits a byte, and how many bytes of the pattern it is.
fn one(pattern: &[u8], byte: u8) -> (bool, usize) {
    match pattern {
        [] => (false, 0),
        [b'?', ..] => (true, 1),
        [b'[', ..] => class(pattern, byte),
        [b'\\', quoted, ..] => (*quoted == byte, 2),
        [literal, ..] => (*literal == byte, 1),
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
    use super::{PATTERN_BYTES_MAX, by_states, matches};

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

    #[test]
    fn all_states_at_once_come_to_the_same() {
        // Short words of few letters, by a generator of their own: every corner comes up.
        let mut seed = 1_u64;
        let mut word = |letters: &[u8], most: usize| -> Vec<u8> {
            let mut next = || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                usize::try_from(seed >> 40).expect("24 bits")
            };
            let length = next() % most;
            (0..length).map(|_| letters[next() % letters.len()]).collect()
        };
        let mut matched = 0;
        for round in 0..20_000 {
            let most = if round % 8 == 0 { 160 } else { 9 };
            let (pattern, text) = (word(b"ab**?[]^-\\", most), word(b"aab]", most));
            if !text.is_empty() {
                let expected = matches(&pattern, &text);
                matched += u32::from(expected);
                let shown = || (String::from_utf8_lossy(&pattern), String::from_utf8_lossy(&text));
                assert_eq!(by_states(&pattern, &text), expected, "{:?}", shown());
            }
        }
        assert!(matched > 500, "{matched}");
    }

    #[test]
    fn a_long_pattern_and_a_long_text_come_to_what_they_mean() {
        let text = "a".repeat(64 << 10);
        let literal = "*".to_owned() + &"a".repeat(PATTERN_BYTES_MAX - 2) + "b";
        let class = "*[".to_owned() + &"b".repeat(PATTERN_BYTES_MAX - 2);
        for pattern in [&literal, &class] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()));
        }
        assert!(matches(literal.as_bytes(), (text + "b").as_bytes()));
    }
}
