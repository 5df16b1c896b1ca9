//! Messages of the peer port, and what stands in them as bytes: scripts on their way, answers, excerpts, events. No panic, no memory on the word of
//! a length; what is taken is written again, and read as the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use plenary::machine::excerpt;
use plenary::machine::reply::Reply;
use plenary::machine::session_events::SessionEvents;
use plenary::testing::{CallProbe, MessageProbe};
use plenary_fuzz::bounded;
use std::cell::RefCell;

thread_local! {
    static SCRATCH: RefCell<excerpt::Scratch> = RefCell::default();
}

/// The bytes again; none where they are refused. A name and an end of line say what they are.
fn again(name: &str, bytes: &Bytes) -> Option<Bytes> {
    match name {
        "reply" => Reply::from_bytes(bytes).map(|reply| reply.to_bytes()),
        "script" => CallProbe::request_again(bytes),
        "notes" => Some(CallProbe::notes_again(bytes)),
        "events" => SessionEvents::from_bytes(bytes.clone())
            .ok()
            .map(|events| events.to_bytes()),
        // Of what was left from the one before nothing may be seen: the same keys, however often it is read.
        "excerpt" => SCRATCH.with_borrow_mut(|scratch| {
            let mut seen = || scratch.view(bytes.clone(), 0, |view| view.keys().count()).ok();
            let (keys, again) = (seen(), seen());
            assert_eq!(keys, again);
            keys.map(|_| bytes.clone())
        }),
        name => MessageProbe::again(name, bytes.clone()).map(Bytes::from),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let Ok(name) = std::str::from_utf8(&data[..end]) else {
        return;
    };
    let bytes = Bytes::copy_from_slice(&data[end + 1..]);
    if let Some(taken) = bounded(data.len(), || again(name, &bytes)) {
        assert_eq!(again(name, &taken).as_ref(), Some(&taken), "{name}");
    }
});
