//! Redis' glob patterns, for the names of parameters and commands: `*`, `?`, `[a-z]`, `[^a]`, `\` before a literal. Any case.

/// Whether the whole name fits. Takes at most pattern × name steps: there is one place to go back to, the last `*`.
pub(super) fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut rest, mut star) = (pattern, name, None);
    loop {
        if let Some((b'*', after)) = at.split_first() {
            (at, star) = (after, Some((after, rest)));
            continue;
        }
        match (one(at, rest), rest.is_empty() && at.is_empty()) {
            (_, true) => return true,
            (Some(after), _) => (at, rest) = (after, &rest[1..]),
            (None, _) => match star {
                Some((after, from)) if !from.is_empty() => {
                    (at, rest, star) = (after, &from[1..], Some((after, &from[1..])));
                }
                _ => return false,
            },
        }
    }
}

/// What is left of the pattern after it took the first byte of the name.
fn one<'a>(pattern: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let byte = name.first()?.to_ascii_lowercase();
    match pattern {
        [b'?', after @ ..] => Some(after),
        [b'[', set @ ..] => in_set(set, byte),
        [b'\\', literal, after @ ..] | [literal, after @ ..] => {
            (literal.to_ascii_lowercase() == byte).then_some(after)
        }
        [] => None,
    }
}

/// What is left after a set that has the byte. A set without its `]` reaches to the end of the pattern, as in Redis.
fn in_set(set: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut set) = set.strip_prefix(b"^").map_or((false, set), |set| (true, set));
    let mut found = false;
    loop {
        match set {
            [] | [b']', ..] => break,
            [b'\\', literal, after @ ..] => {
                (found, set) = (found || literal.to_ascii_lowercase() == byte, after)
            }
            [from, b'-', to, after @ ..] => {
                let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
                (found, set) = (found || (from.min(to)..=from.max(to)).contains(&byte), after);
            }
            [literal, after @ ..] => (found, set) = (found || literal.to_ascii_lowercase() == byte, after),
        }
    }
    (found != negated).then(|| set.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns_fit_as_in_redis() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "save"),
            ("SAVE", "save"),
            ("s?ve", "save"),
            ("[s]ave", "save"),
            ("maxm*y", "maxmemory"),
            ("*m*m*", "maxmemory"),
            ("[^a]ave", "save"),
            ("[q-t]ave", "save"),
            ("\\save", "save"),
            ("a\\*", "a*"),
            ("***", "x"),
        ] {
            assert!(fits(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("", "save"),
            ("save", ""),
            ("?", ""),
            ("sav", "save"),
            ("[^s]ave", "save"),
            ("a\\*", "ab"),
            ("*x", "save"),
            ("[", "s"),
        ] {
            assert!(!fits(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }
}
