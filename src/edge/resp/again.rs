//! What clients send again, and when as a whole: redis-py sends a pipeline again where any reply in it is `LOADING`, go-redis where the first is that or `TRYAGAIN`.
//!
//! So among the replies to what came together such a word stands only where none of it was written: behind a write the same trouble is told as `ERR`, and once the
//! word was told, nothing is written any more.

use crate::machine::reply::CommandError;

/// What became so far of what came together.
#[derive(Debug, Default)]
pub(super) enum SoFar {
    /// Nothing was written.
    #[default]
    Nothing,
    /// Something was, or may have been.
    Written,
    /// This was told, and nothing was written.
    Refused(CommandError),
}

impl SoFar {
    /// Asked before anything is written.
    ///
    /// # Errors
    /// What was told before: it is told of this too.
    pub(super) fn goes_on(&self) -> Result<(), CommandError> {
        match self {
            Self::Refused(error) => Err(error.clone()),
            Self::Nothing | Self::Written => Ok(()),
        }
    }

    /// What is told of a command that came to this. `writes`: whether it may have written something.
    pub(super) fn after<T>(
        &mut self,
        writes: bool,
        came: Result<T, CommandError>,
    ) -> Result<T, CommandError> {
        match (came, &self) {
            (Err(error), Self::Written) if is_sent_again(&error) => Err(once(error)),
            (Err(error), _) if is_sent_again(&error) => {
                *self = Self::Refused(error.clone());
                Err(error)
            }
            (came, _) => {
                if writes {
                    *self = Self::Written;
                }
                came
            }
        }
    }
}

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
