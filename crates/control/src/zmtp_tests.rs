//! The decoder against frames whole, in pieces, absurd and random.

use super::*;

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Feeds `wire` in pieces of `step` bytes and gathers what comes out.
fn decode(wire: &[u8], step: usize) -> Result<Vec<Event>, Violation> {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    for piece in wire.chunks(step) {
        decoder.buffer().extend_from_slice(piece);
        while let Some(event) = decoder.next_event()? {
            events.push(event);
        }
        assert!(decoder.buffer.len() <= MAX_MESSAGE + step, "{} bytes are held", decoder.buffer.len());
    }
    Ok(events)
}

#[test]
fn what_is_encoded_is_decoded_however_it_is_cut() {
    let long = Bytes::from(vec![7; 1000]);
    let sent = [vec![Bytes::new(), bytes("{}")], vec![long.clone(), Bytes::new(), long], vec![bytes("x")]];
    let mut wire = BytesMut::new();
    for parts in &sent {
        wire.put_slice(&message(parts));
    }
    wire.put_slice(&ready("REQ"));
    for step in [1, 2, 3, 7, 64, 5000] {
        let events = decode(&wire, step).unwrap();
        let (messages, command) = events.split_at(3);
        let want: Vec<Event> = sent.iter().cloned().map(Event::Message).collect();
        assert_eq!(messages, want, "in steps of {step}");
        let [Event::Command(name, body)] = command else { panic!("{command:?}") };
        assert_eq!(&name[..], b"READY");
        assert_eq!(socket_type(body.clone()).unwrap(), "REQ");
    }
}

#[test]
fn what_a_header_announces_is_not_allocated() {
    for announced in [u64::from(u32::MAX), 1 << 40, i64::MAX as u64] {
        let mut wire = BytesMut::from(&[LONG][..]);
        wire.put_u64(announced);
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(&wire);
        let event = decoder.next_event().unwrap().unwrap();
        assert_eq!(event, Event::TooLarge { parts: Vec::new(), bytes: announced, last: true });
        assert!(decoder.buffer.capacity() < 4096);
    }
    let beyond = [&[LONG][..], &u64::MAX.to_be_bytes()].concat();
    assert!(decode(&beyond, 9).is_err());
}

#[test]
fn a_message_too_large_is_thrown_away_and_the_next_is_read() {
    let big = Bytes::from(vec![1; 100_000]);
    let mut wire = BytesMut::new();
    wire.put_slice(&message(&[Bytes::new(), big.clone(), big.clone(), bytes("tail")]));
    wire.put_slice(&message(&[bytes("next")]));
    let want = vec![
        Event::TooLarge { parts: vec![Bytes::new()], bytes: 200_004, last: false },
        Event::Message(vec![bytes("next")]),
    ];
    // Byte by byte takes Miri an hour.
    let steps: &[usize] = if cfg!(miri) { &[1000, 300_000] } else { &[1, 1000, 300_000] };
    for &step in steps {
        assert_eq!(decode(&wire, step).unwrap(), want, "in steps of {step}");
    }
}

#[test]
fn parts_without_end_are_not_gathered() {
    let many = vec![Bytes::new(); 100_000];
    let events = decode(&message(&many), 4096).unwrap();
    let [Event::TooLarge { parts, last: false, .. }] = &events[..] else { panic!("{} events", events.len()) };
    assert_eq!(parts.len(), MAX_PARTS);
}

#[test]
fn violations_are_recognised() {
    assert!(decode(b"\x80\x01x", 3).is_err());
    assert!(decode(b"\x05\x01x", 3).is_err(), "a command with more to come");
    assert!(decode(b"\x01\x01x\x04\x06\x05READY", 20).is_err(), "a command inside a message");
    assert!(decode(b"\x04\x00", 2).is_err());
    assert!(decode(b"\x04\x03\x05RE", 5).is_err());
    assert!(decode(b"GET / HTTP/1.1\r\n\r\n", 100).is_err());
    assert!(check_greeting(b"GET").is_err());
    assert!(check_greeting(&greeting()).is_ok());
    let mut old = greeting();
    old[10] = 2;
    assert!(check_greeting(&old).is_err());
    let mut plain = greeting();
    plain[12..17].copy_from_slice(b"PLAIN");
    assert!(check_greeting(&plain).is_err());
    for properties in [&b"\x0bSocket-Type\xff\xff\xff\xffREQ"[..], b"\x0bSocket", b"\x01a\x00\x00\x00", b""] {
        assert!(socket_type(Bytes::copy_from_slice(properties)).is_err());
    }
}

#[test]
fn random_bytes_never_panic_nor_pile_up() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..if cfg!(miri) { 20 } else { 2000 } {
        let wire: Vec<u8> = (0..512)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Mostly small values, so that frames often hold together for a while.
                let byte = (state >> 56) as u8;
                if state & 0x3000 == 0 { byte } else { byte & 7 }
            })
            .collect();
        let _ = decode(&wire, 17);
    }
}
