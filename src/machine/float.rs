//! Floating-point numbers as `INCRBYFLOAT` and `HINCRBYFLOAT` mean them: the 80-bit `long double` of x86, in software.
//!
//! Redis reads with `strtold`, adds, and prints with `%.17Lf` less trailing zeros. Doing the same in software makes every node
//! agree with every other and with Redis, whatever its processor and C library. Scores of sorted sets are doubles: those are only read here.

use rustc_apfloat::ieee::{Double, X87DoubleExtended};
use rustc_apfloat::{Float as Number, Round, Status};

/// The longest text that is read as a number, in bytes. Redis' `MAX_LONG_DOUBLE_CHARS`, less its final NUL.
const TEXT_MAX: usize = 5 * 1024 - 1;

/// Digits after the point that are printed.
const FRACTION_DIGITS: usize = 17;

/// Exponents (of 10, or of 2 in hexadecimal) beyond this come to zero or to more than the greatest number, whatever `TEXT_MAX`
/// digits stand before them.
const EXPONENT_MAX: i64 = 60_000;

/// One number: finite or infinite, never NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Float(X87DoubleExtended);

impl Float {
    /// Zero, what an absent key or field counts as.
    pub(super) const ZERO: Float = Float(X87DoubleExtended::ZERO);

    /// Reads a number as `strtold` does in the C locale: decimal, hexadecimal or `inf`. None for anything else: other bytes before
    /// or after it, NaN, a number too great, and one so small that it would become zero.
    pub(super) fn parse(text: &[u8]) -> Option<Float> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let (negative, unsigned) = signed(text);
        let value = if is_infinity(unsigned) {
            X87DoubleExtended::INFINITY
        } else {
            let (value, in_range) = magnitude(unsigned)?;
            in_range.then_some(value)?
        };
        Some(Float(if negative { -value } else { value }))
    }

    /// The sum, rounded to nearest; none when that is infinite or not a number.
    pub(super) fn add(self, other: Float) -> Option<Float> {
        let sum = self.0.add_r(other.0, Round::NearestTiesToEven).value;
        sum.is_finite().then_some(Float(sum))
    }

    /// Seconds as milliseconds, rounded up; none beyond 64 bits.
    pub(super) fn to_millis(self) -> Option<i64> {
        let thousand = X87DoubleExtended::from_u128(1_000).value;
        let millis = self.0.mul_r(thousand, Round::NearestTiesToEven).value;
        let whole = millis.to_i128_r(64, Round::TowardPositive, &mut false);
        (!whole.status.contains(Status::INVALID_OP))
            .then(|| i64::try_from(whole.value).ok())
            .flatten()
    }

    /// As Redis prints it: no exponent, at most 17 digits after the point, no trailing zeros.
    pub(super) fn to_text(self) -> String {
        if self.0.is_infinite() {
            return if self.0.is_negative() { "-inf" } else { "inf" }.to_owned();
        }
        // Sign, 15 bits of exponent, 64 of significand with its integer bit: value = significand * 2^(exponent - 16383 - 63).
        let bits = self.0.to_bits();
        let significand = u64::try_from(bits & u128::from(u64::MAX)).expect("64 bits");
        let exponent = i32::try_from((bits >> 64) & 0x7fff).expect("15 bits").max(1) - 16_383 - 63;
        let text = if exponent >= 0 {
            whole(significand, exponent.unsigned_abs())
        } else {
            fraction(significand, exponent.unsigned_abs())
        };
        if self.0.is_negative() && text != "0" {
            format!("-{text}")
        } else {
            text
        }
    }
}

/// Reads a double as Redis reads a score, a weight or a place: as `strtod` does in the C locale. None for anything else: other bytes before or
/// after it, NaN, a number too great, and one so small that it would become zero.
pub(super) fn double(text: &[u8]) -> Option<f64> {
    let (value, in_range) = any_double(text)?;
    in_range.then_some(value)
}

/// Reads a double as Redis reads the end of a range of scores: what [`double`] reads, spaces before it, nothing at all (zero), what is out
/// of range (infinite or zero), and only up to the first NUL.
pub(super) fn range_end(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    // What `isspace` knows in the C locale.
    let is_space = |byte: &u8| matches!(*byte, b' ' | b'\t'..=b'\r');
    let spaces = text.iter().take_while(|byte| is_space(byte)).count();
    any_double(&text[spaces..]).map(|(value, _)| value)
}

/// A double, and whether it is in range; what is not is infinite or zero.
fn any_double(text: &[u8]) -> Option<(f64, bool)> {
    let (negative, unsigned) = signed(text);
    let (value, in_range) = match unsigned {
        [b'0', b'x' | b'X', ..] => {
            let (value, in_range) = magnitude::<Double>(unsigned)?;
            let bits = u64::try_from(value.to_bits()).expect("a double has 64 bits");
            (f64::from_bits(bits), in_range)
        }
        // Rust reads what C reads, if it begins with a digit or a point, and rounds as well.
        [b'0'..=b'9' | b'.', ..] => {
            let value: f64 = std::str::from_utf8(unsigned).ok()?.parse().ok()?;
            let mut significand = unsigned
                .iter()
                .take_while(|byte| !byte.eq_ignore_ascii_case(&b'e'));
            let vanished = value == 0.0 && significand.any(|byte| matches!(*byte, b'1'..=b'9'));
            (value, value.is_finite() && !vanished)
        }
        _ if is_infinity(unsigned) => (f64::INFINITY, true),
        _ => return None,
    };
    Some((if negative { -value } else { value }, in_range))
}

/// Whether there is a minus, and what follows the sign.
fn signed(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

fn is_infinity(unsigned: &[u8]) -> bool {
    unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity")
}

/// A number without sign: `12`, `1.5`, `.5e-3`, `0x1.8p3`; and whether it is in range: neither infinite nor a zero that should not be one.
fn magnitude<F: Number>(text: &[u8]) -> Option<(F, bool)> {
    let (hexadecimal, digits) = match text {
        [b'0', b'x' | b'X', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mark = if hexadecimal { b'p' } else { b'e' };
    let (significand, exponent) = match digits.iter().position(|byte| byte.to_ascii_lowercase() == mark) {
        Some(at) => (&digits[..at], clamped_exponent(&digits[at + 1..])?),
        None => (digits, 0),
    };
    let is_digit = if hexadecimal {
        u8::is_ascii_hexdigit
    } else {
        u8::is_ascii_digit
    };
    let points = significand.iter().filter(|byte| **byte == b'.').count();
    let plain = significand.iter().all(|byte| *byte == b'.' || is_digit(byte));
    if !plain || points > 1 || significand.len() == points {
        return None;
    }
    if significand.iter().all(|byte| matches!(byte, b'0' | b'.')) {
        return Some((F::ZERO, true));
    }
    let significand = std::str::from_utf8(significand).ok()?;
    let canonical = if hexadecimal {
        format!("0x{significand}p{exponent}")
    } else {
        format!("{significand}e{exponent}")
    };
    let value = F::from_str_r(&canonical, Round::NearestTiesToEven).ok()?.value;
    Some((value, value.is_finite() && !value.is_zero()))
}

/// An exponent's digits with their sign, brought into ±[`EXPONENT_MAX`].
fn clamped_exponent(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = digits.iter().fold(0, |size: i64, digit| {
        (size * 10 + i64::from(digit - b'0')).min(EXPONENT_MAX)
    });
    Some(sign * size)
}

/// `significand * 2^exponent`: a whole number of up to 4,933 digits.
fn whole(significand: u64, exponent: u32) -> String {
    const LIMB: u64 = 1_000_000_000;
    // Little-endian limbs of nine digits; doubled 32 bits at a time, each step a multiplication by at most 2^32.
    let mut limbs = vec![0; 1];
    let mut multiply_add = |factor: u64, addend: u64| {
        let mut carry = addend;
        for limb in &mut limbs {
            let product = *limb * factor + carry;
            (*limb, carry) = (product % LIMB, product / LIMB);
        }
        while carry > 0 {
            limbs.push(carry % LIMB);
            carry /= LIMB;
        }
    };
    multiply_add(1, significand >> 32);
    multiply_add(1 << 32, significand & 0xffff_ffff);
    let mut left = exponent;
    while left > 0 {
        let step = left.min(32);
        multiply_add(1 << step, 0);
        left -= step;
    }
    let mut text = limbs.last().expect("one limb at least").to_string();
    for limb in limbs.iter().rev().skip(1) {
        text.push_str(&format!("{limb:09}"));
    }
    text
}

/// `significand / 2^shift`, rounded half to even after 17 digits.
fn fraction(significand: u64, shift: u32) -> String {
    // Below 2^64 * 10^17 < 2^121, so from a shift of 122 on the quotient is under one half and rounds to zero.
    let scaled = u128::from(significand) * 10u128.pow(17);
    let rounded = if shift > 122 {
        0
    } else {
        let (quotient, rest, half) = (scaled >> shift, scaled & ((1 << shift) - 1), 1u128 << (shift - 1));
        quotient + u128::from(rest > half || (rest == half && quotient & 1 == 1))
    };
    let digits = format!("{rounded:0width$}", width = FRACTION_DIGITS + 1);
    let (integer, decimals) = digits.split_at(digits.len() - FRACTION_DIGITS);
    format!("{integer}.{decimals}")
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(number: &str) -> Option<String> {
        Float::parse(number.as_bytes()).map(Float::to_text)
    }

    #[test]
    fn seconds_are_rounded_up_to_milliseconds() {
        for (read, millis) in [
            ("0", Some(0)),
            ("1", Some(1_000)),
            ("0.0001", Some(1)),
            ("1.0001", Some(1_001)),
            ("-0.0001", Some(0)),
            ("-1", Some(-1_000)),
            ("0x10", Some(16_000)),
            ("9223372036854775", Some(9_223_372_036_854_775_000)),
            ("9223372036854776", None),
            ("inf", None),
            ("-inf", None),
        ] {
            let number = Float::parse(read.as_bytes()).expect("a number");
            assert_eq!(number.to_millis(), millis, "{read}");
        }
    }

    #[test]
    fn numbers_are_printed_as_redis_prints_them() {
        for (read, printed) in [
            ("0", "0"),
            ("-0", "0"),
            ("+1.50", "1.5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("3.0e3", "3000"),
            ("1e-18", "0"),
            ("-1e-18", "0"),
            ("0x1.8p3", "12"),
            ("0XA", "10"),
            ("9223372036854775807", "9223372036854775807"),
            ("1e20", "100000000000000000000"),
            ("3.14159265358979323846", "3.14159265358979324"),
            ("inf", "inf"),
            ("-Infinity", "-inf"),
            ("0e99999999999999999999", "0"),
        ] {
            assert_eq!(text(read).as_deref(), Some(printed), "{read}");
        }
    }

    #[test]
    fn what_is_no_number_or_out_of_range_is_refused() {
        for read in [
            "", "-", ".", "e5", "1e", "1e+", " 1", "1 ", "1x", "nan", "0x", "0x.", "0x1p", "1e5000",
            "1e-5000", "--1", "1.2.3", "1\0",
        ] {
            assert_eq!(text(read), None, "{read}");
        }
        assert_eq!(text(&"1".repeat(TEXT_MAX + 1)), None);
    }

    #[test]
    fn doubles_are_read_as_c_reads_them() {
        for (text, read) in [
            ("0", Some(0.0)),
            ("-0", Some(-0.0)),
            ("+1.5", Some(1.5)),
            (".5", Some(0.5)),
            ("5.", Some(5.0)),
            ("5.e1", Some(50.0)),
            ("1E2", Some(100.0)),
            ("0x1.8p3", Some(12.0)),
            ("-0XAp0", Some(-10.0)),
            ("0x0.0000000000001p-1022", Some(f64::from_bits(1))),
            ("0x1.00000000000008p0", Some(1.0)),
            ("4.9e-324", Some(f64::from_bits(1))),
            ("0e999999999999999999999", Some(0.0)),
            ("9007199254740993", Some(9007199254740992.0)),
            ("inf", Some(f64::INFINITY)),
            ("-INFinity", Some(f64::NEG_INFINITY)),
            ("", None),
            (".", None),
            ("e5", None),
            ("1e", None),
            ("1e+", None),
            ("+-1", None),
            ("1_0", None),
            (" 1", None),
            ("1 ", None),
            ("nan", None),
            ("infx", None),
            ("0x", None),
            ("1e400", None),
            ("-1e400", None),
            ("1e-400", None),
            ("0x1p5000", None),
            ("0x1p-5000", None),
        ] {
            let bits = |number: Option<f64>| number.map(f64::to_bits);
            assert_eq!(bits(double(text.as_bytes())), bits(read), "{text}");
        }
    }

    #[test]
    fn ends_of_ranges_are_read_with_more_patience() {
        for (text, read) in [
            ("", Some(0.0)),
            ("\0x", Some(0.0)),
            ("1\0x", Some(1.0)),
            (" \t\n1", Some(1.0)),
            ("1e400", Some(f64::INFINITY)),
            ("-0x1p5000", Some(f64::NEG_INFINITY)),
            ("1e-400", Some(0.0)),
            ("+inf", Some(f64::INFINITY)),
            (" ", None),
            ("1 ", None),
            ("nan", None),
            ("x", None),
            ("- 1", None),
        ] {
            assert_eq!(range_end(text.as_bytes()), read, "{text:?}");
        }
    }

    #[test]
    fn the_greatest_number_has_all_its_digits() {
        let greatest = text("1.18973149535723176502e+4932").unwrap();
        // (2^64 - 1) * 2^16320, from a calculator with whole numbers of any size.
        assert_eq!(greatest.len(), 4933);
        assert!(
            greatest.starts_with("118973149535723176502126")
                && greatest.ends_with("604419552086811989770240"),
            "{greatest}"
        );
        let one = Float::parse(b"1.18973149535723176502e+4932").unwrap();
        assert_eq!(one.add(one), None, "twice the greatest");
    }

    #[test]
    fn sums_are_those_of_long_doubles() {
        let sum = |left: &str, right: &str| {
            Some(
                Float::parse(left.as_bytes())?
                    .add(Float::parse(right.as_bytes())?)?
                    .to_text(),
            )
        };
        assert_eq!(sum("10.50", "0.1").as_deref(), Some("10.6"));
        assert_eq!(sum("0.1", "0.2").as_deref(), Some("0.3"));
        assert_eq!(
            sum("9223372036854775807", "1").as_deref(),
            Some("9223372036854775808")
        );
        assert_eq!(
            sum("18446744073709551615", "1").as_deref(),
            Some("18446744073709551616")
        );
        assert_eq!(sum("1", "-1").as_deref(), Some("0"));
        assert_eq!(sum("inf", "-inf"), None);
        assert_eq!(sum("inf", "1"), None);
    }
}
