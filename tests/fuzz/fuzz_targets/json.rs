//! Text that is read as a session is written back as one that means the same, and reading it into
//! types neither panics nor overflows the stack.
#![no_main]

use django_session::SessionData;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(data) = SessionData::from_json(text) else { return };
    let json = data.to_json().unwrap();
    let again = SessionData::from_json(&json).unwrap();
    assert_eq!(again.to_json().unwrap(), json);
    for name in data.keys().filter_map(|name| name.to_str()) {
        let _ = data.get::<Vec<Vec<f64>>>(&name);
        let _ = data.get::<std::collections::BTreeMap<i64, Option<String>>>(&name);
        let _ = data.get::<(u8, bool, char)>(&name);
    }
});
