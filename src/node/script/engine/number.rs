//! Numbers as C prints and reads them: `%.14g` for Lua's `tostring`, `%.17g` for arguments of commands.

use mlua::{Lua, Value};

/// C's `%.{digits}g`.
pub(super) fn general(number: f64, digits: usize) -> String {
    if number.is_nan() {
        return if number.is_sign_negative() { "-nan" } else { "nan" }.to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let digits = digits.max(1);
    let scientific = format!("{number:.precision$e}", precision = digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').expect("{:e} writes an e");
    let exponent: i32 = exponent.parse().expect("{:e} writes an integer after the e");
    let precision = i32::try_from(digits).expect("at most a few hundred digits");
    if (-4..precision).contains(&exponent) {
        let decimals = usize::try_from(precision - 1 - exponent).expect("exponent is below: checked above");
        return without_trailing_zeros(&format!("{number:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", without_trailing_zeros(mantissa), exponent.abs())
}

fn without_trailing_zeros(number: &str) -> &str {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    }
}

/// A number as `tostring` prints it; nothing for what is none.
pub(super) fn to_text(number: &Value) -> String {
    match number {
        Value::Integer(number) if number.unsigned_abs() < 100_000_000_000_000 => number.to_string(),
        Value::Integer(number) => general(*number as f64, 14),
        Value::Number(number) => general(*number, 14),
        _ => String::new(),
    }
}

/// A value as a number, where it is one or a string that reads as one.
pub(super) fn of(lua: &Lua, value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        Value::String(_) => lua.coerce_number(value.clone()).ok().flatten(),
        _ => None,
    }
}

/// C's `strtod` without the blanks: the number the text begins with, and how long that is.
pub(super) fn read_float(text: &[u8]) -> Option<(f64, usize)> {
    let (negative, sign) = match text.first() {
        Some(b'-') => (true, 1),
        Some(b'+') => (false, 1),
        _ => (false, 0),
    };
    let unsigned = &text[sign..];
    let (number, length) = magnitude(unsigned)?;
    Some((if negative { -number } else { number }, sign + length))
}

fn magnitude(text: &[u8]) -> Option<(f64, usize)> {
    let is_word = |word: &[u8]| {
        text.get(..word.len())
            .is_some_and(|text| text.eq_ignore_ascii_case(word))
    };
    if is_word(b"inf") {
        return Some((f64::INFINITY, if is_word(b"infinity") { 8 } else { 3 }));
    }
    if is_word(b"nan") {
        let inside = text
            .get(4..)
            .filter(|_| text.get(3) == Some(&b'('))
            .unwrap_or_default();
        let length = inside
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_')
            .count();
        let closed = inside.get(length) == Some(&b')');
        return Some((f64::NAN, if closed { length + 5 } else { 3 }));
    }
    if is_word(b"0x")
        && let Some((number, length)) = hexadecimal(&text[2..])
    {
        return Some((number, length + 2));
    }
    let length = number_length(text, u8::is_ascii_digit, b'e')?;
    let digits = std::str::from_utf8(&text[..length]).expect("digits, a point and an exponent");
    Some((digits.parse().expect("made as Rust reads it, too"), length))
}

/// How long a number without sign is: digits with a point among them, and an exponent where it has digits.
fn number_length(text: &[u8], is_digit: impl Fn(&u8) -> bool, mark: u8) -> Option<usize> {
    let digits = |from: usize| text[from..].iter().take_while(|byte| is_digit(byte)).count();
    let whole = digits(0);
    let mut length = whole;
    if text.get(length) == Some(&b'.') {
        let fraction = digits(length + 1);
        if whole + fraction > 0 {
            length += 1 + fraction;
        }
    }
    if length == 0 {
        return None;
    }
    if text
        .get(length)
        .is_some_and(|byte| byte.eq_ignore_ascii_case(&mark))
    {
        let sign = usize::from(matches!(text.get(length + 1), Some(b'+' | b'-')));
        let from = length + 1 + sign;
        let digits = text
            .get(from..)
            .unwrap_or_default()
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if digits > 0 {
            length = from + digits;
        }
    }
    Some(length)
}

fn hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    let length = number_length(text, u8::is_ascii_hexdigit, b'p')?;
    let number = &text[..length];
    let (digits, exponent) = match number.iter().position(|byte| byte.eq_ignore_ascii_case(&b'p')) {
        Some(at) => (&number[..at], &number[at + 1..]),
        None => (number, &b"0"[..]),
    };
    let exponent = std::str::from_utf8(exponent).ok()?.trim_start_matches('+');
    let mut exponent =
        exponent
            .parse::<i32>()
            .unwrap_or(if exponent.starts_with('-') { -9_999 } else { 9_999 });
    let mut value = 0.0;
    let mut past_point = false;
    for byte in digits {
        match char::from(*byte).to_digit(16) {
            Some(digit) => {
                value = value * 16.0 + f64::from(digit);
                exponent -= if past_point { 4 } else { 0 };
            }
            None => past_point = true,
        }
    }
    Some((value * f64::from(exponent).exp2(), length))
}

/// C's cast to a 64-bit integer as x86-64 does it: what does not fit becomes the least one.
pub(super) fn truncate(number: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number) {
        number as i64
    } else {
        i64::MIN
    }
}

/// The low 32 bits: C's cast from a long to an int.
pub(super) fn low(number: i64) -> i32 {
    number as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_c_prints_them() {
        for (number, digits, printed) in [
            (0.0, 14, "0"),
            (-0.0, 14, "-0"),
            (0.1, 14, "0.1"),
            (0.1, 17, "0.10000000000000001"),
            (1e15, 14, "1e+15"),
            (1e13, 14, "10000000000000"),
            (123456.789, 3, "1.23e+05"),
            (0.0001, 14, "0.0001"),
            (0.00001, 14, "1e-05"),
            (-2.5, 1, "-2"),
            (9007199254740993.0, 17, "9007199254740992"),
            (f64::INFINITY, 14, "inf"),
            (f64::NEG_INFINITY, 14, "-inf"),
        ] {
            assert_eq!(general(number, digits), printed);
        }
    }

    #[test]
    fn a_cast_keeps_to_what_the_processor_does() {
        assert_eq!(truncate(-3.9), -3);
        assert_eq!(truncate(1e300), i64::MIN);
        assert_eq!(truncate(f64::NAN), i64::MIN);
    }
}
