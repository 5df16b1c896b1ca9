//! What clients send again, and when as a whole: redis-py sends a pipeline again where any reply in it is `LOADING`, go-redis where the first is that or `TRYAGAIN`.
//!
//! So among the replies to what came together such a word stands only where none of it was written: behind a write the same trouble is told as `ERR`, and once the
//! word was told, nothing is written any more.

use crate::machine::reply::CommandError;

/// The first words at which clients send again.
const WORDS: [&str; 2] = ["LOADING ", "TRYAGAIN "];

/// Whether clients send again what is answered this.
pub(super) fn is_sent_again(error: &CommandError) -> bool {
    let CommandError::Other(text) = error else {
        return false;
    };
    WORDS.iter().any(|word| text.starts_with(word))
}

/// The same, so that nobody sends it again.
pub(super) fn once(error: CommandError) -> CommandError {
    let CommandError::Other(text) = &error else {
        return error;
    };
    match WORDS.iter().find_map(|word| text.strip_prefix(word)) {
        Some(why) => CommandError::Other(format!("ERR {why}").into()),
        None => error,
    }
}
