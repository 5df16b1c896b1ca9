//! A file of settings, and flags behind it: no panic, no depth or length takes memory or stack, and an error is told, never what stands for a secret;
//! what is taken says the same over itself, and flags win over the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plenary::testing::SettingsProbe;
use plenary_fuzz::bounded;
use std::ffi::OsString;

/// In what way ever it stands in the file, nobody is told.
const SECRET: &str = "Xyzzy";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (flags, file): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("--"));
    let file = file.join("\n");
    let of_secret = |line: &str| {
        let rest = line.trim_start().strip_prefix("access_key");
        rest.is_some_and(|rest| rest.trim_start().starts_with('=') && rest.contains(SECRET))
    };
    let keeps_secret = |error: &str| {
        let hidden = file.matches(SECRET).count() == 1 && file.lines().any(of_secret);
        assert!(!(hidden && error.contains(SECRET)), "{error}");
    };
    // Clap's own words for flags and values take some memory.
    let read = bounded(data.len() + (64 << 10), || {
        let file = SettingsProbe::from_toml(&file);
        (file, SettingsProbe::from_flags(flags.iter().map(OsString::from)))
    });
    let (file, flags) = match read {
        (Ok(file), Ok(flags)) => (file, flags),
        (file, _) => {
            if let Err(error) = file {
                keeps_secret(&error);
            }
            return;
        }
    };
    for settings in [&file, &flags] {
        assert_eq!(
            format!("{settings:?}"),
            format!("{:?}", settings.clone().over(settings.clone()))
        );
    }
    let merged = flags.clone().over(file.clone());
    assert_eq!(
        format!("{:?}", flags.over(merged.clone())),
        format!("{merged:?}"),
        "a flag wins"
    );
    let (judged, again) = (merged.clone().judged(), merged.judged());
    assert_eq!(judged, again);
});
