//! Bugs that are planted on purpose, so that it can be seen which test finds them: `.ci/mutants` plants each and expects that its test fails.
//!
//! Only a build with the feature `mutants` can have one, and only the one that `PLENARY_MUTANT` names. In every other build [`Mutant::is_planted`]
//! is `false` when it is compiled.

/// A bug that would break a promise of ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Batches of the log are not flushed before they are acknowledged.
    SkipFlush,
    /// A batch of the log is acknowledged before it is written.
    AcknowledgeUnwritten,
    /// A member says that it has stored entries as soon as they have come.
    AcknowledgeUnstored,
    /// Names in folders are not flushed: power loss may take a file back that was made, renamed or removed.
    SkipNameFlush,
    /// A vote is not written to the log.
    ForgetVote,
    /// A member that was started again votes at once, though it may have promised a leader that it would not.
    VoteAfterRestart,
    /// A linearizable read is answered without asking a majority whether this node still leads.
    ReadUnconfirmed,
    /// A linearizable read is answered when openraft says that a majority has, which takes an answer on a stream of entries for one of now.
    ReadOnOldAnswers,
    /// A read that is to be as fresh as a token is answered by a node that is behind.
    ReadBehindToken,
    /// A group that comes a second time is applied a second time.
    ApplyTwice,
    /// What a script wrote is applied although what it had read has changed.
    ApplyStaleScript,
    /// The leader stamps groups by its own clock.
    OwnClock,
    /// Each holder of a session's lock has the same token.
    ReuseToken,
    /// Who has waited in the log is served and not told.
    DropWaiter,
    /// Whoever reaches the peer port is let in.
    AdmitStranger,
    /// A leader stamps groups with the level that its own program understands, whatever the others do.
    IgnoreLevel,
}

#[cfg(feature = "mutants")]
impl Mutant {
    const ALL: [Self; 16] = [
        Self::SkipFlush,
        Self::AcknowledgeUnwritten,
        Self::AcknowledgeUnstored,
        Self::SkipNameFlush,
        Self::ForgetVote,
        Self::VoteAfterRestart,
        Self::ReadUnconfirmed,
        Self::ReadOnOldAnswers,
        Self::ReadBehindToken,
        Self::ApplyTwice,
        Self::ApplyStaleScript,
        Self::OwnClock,
        Self::ReuseToken,
        Self::DropWaiter,
        Self::AdmitStranger,
        Self::IgnoreLevel,
    ];

    /// Whether it is planted in this process.
    pub(crate) fn is_planted(self) -> bool {
        use std::sync::OnceLock;
        static PLANTED: OnceLock<Option<Mutant>> = OnceLock::new();
        let planted = PLANTED.get_or_init(|| {
            let name = std::env::var("PLENARY_MUTANT").ok()?;
            let mutant = Self::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
            // A name that says nothing would pass for a bug that no test finds.
            Some(mutant.unwrap_or_else(|| panic!("there is no mutant {name:?}")))
        });
        *planted == Some(self)
    }
}

#[cfg(not(feature = "mutants"))]
impl Mutant {
    /// Never: this build has no mutants.
    pub(crate) const fn is_planted(self) -> bool {
        false
    }
}
