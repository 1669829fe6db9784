//! Text from a client becomes calls with checked parameters, text from a server replies; what is sent back is read again.
#![no_main]

use keyframed_control::{Call, ErrorObject, Id, Method, Response, params, parse_reply, parse_request};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// What the daemon does before it carries a call out.
fn checked(name: &str, mut given: keyframed_control::Params) -> Result<Value, ErrorObject> {
    let method: Method = name.parse()?;
    params::check(method, &mut given)?;
    // What is allowed once is allowed again, and means the same.
    let mut again = given.clone();
    params::check(method, &mut again)?;
    assert!(again == given);
    // Not the values: a fraction of many digits is another one when it is read again.
    Ok(given.len().into())
}

fuzz_target!(|text: &[u8]| {
    let reply = parse_request(text).answer(|call| {
        let (id, name, given) = match call {
            Call::Request(request) => (request.id, request.method, request.params),
            Call::Notification(silent) => (Id::Null, silent.method, silent.params),
        };
        Some(Response { id, outcome: checked(&name, given) })
    });
    if let Some(reply) = reply {
        let sent = serde_json::to_vec(&reply).expect("replies are JSON");
        assert!(parse_reply(&sent).expect("a reply of ours is one") == reply);
    }
    let _ = parse_reply(text);
});
