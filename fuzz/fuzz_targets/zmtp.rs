//! Bytes from a connection, in pieces, become events; what is kept stays within the limits, and the cut does not matter.
#![no_main]

use keyframed_control::zmtp::{Decoder, Event, MAX_MESSAGE, MAX_PARTS, check_greeting, message, pong, socket_type};
use libfuzzer_sys::fuzz_target;

/// Every event, and whether the peer was found not to speak the protocol.
fn decode(wire: &[u8], step: usize) -> (Vec<Event>, bool) {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    for piece in wire.chunks(step) {
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.next_event() {
                Ok(Some(Event::TooLarge { last: true, .. })) => return (events, true),
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(_) => return (events, true),
            }
        }
        assert!(decoder.buffer().len() <= MAX_MESSAGE + step);
    }
    (events, false)
}

fuzz_target!(|input: &[u8]| {
    let _ = check_greeting(input);
    let Some((&step, wire)) = input.split_first() else { return };
    let (events, bad) = decode(wire, usize::from(step) + 1);
    assert!(decode(wire, wire.len().max(1)) == (events_again(&events), bad));
    for event in events {
        match event {
            Event::Message(parts) => {
                assert!(parts.len() <= MAX_PARTS && parts.iter().map(|part| part.len()).sum::<usize>() <= MAX_MESSAGE);
                let (again, bad) = decode(&message(&parts), 7);
                assert!(!bad && again == [Event::Message(parts)]);
            }
            Event::Command(_, body) => {
                let _ = (socket_type(body.clone()), pong(&body));
            }
            Event::TooLarge { parts, .. } => assert!(parts.len() <= MAX_PARTS),
        }
    }
});

fn events_again(events: &[Event]) -> Vec<Event> {
    events
        .iter()
        .map(|event| match event {
            Event::Message(parts) => Event::Message(parts.clone()),
            Event::Command(name, body) => Event::Command(name.clone(), body.clone()),
            Event::TooLarge { parts, bytes, last } => {
                Event::TooLarge { parts: parts.clone(), bytes: *bytes, last: *last }
            }
        })
        .collect()
}
