//! Arbitrary input and arbitrary messages: no decoder panics, what is written is what is read, and a stream may be cut
//! anywhere. The fuzz targets look further into the same questions.

use std::net::SocketAddr;

use bowline_proto::{
    DeviceId, PublicKey, SecretKey,
    identity::KnownKeys,
    wire::{
        addr, announce,
        frame::{Frames, LENGTH_LEN, MAX_FRAME},
        peer::{self, Hello, HelloReply, IntroductionKey, MAGIC, PeerDatagram},
        relay,
        tcp::{
            self, BaseFrame, BaseHello, DeviceAddresses, ErrorCode, GetCookie, HostFrame, Info, Notice,
            NoticeCode, Register, Registered, UnreachableReason,
        },
        udp::{BaseDatagram, NatConfirm, NatInit, NatOk, UnverifiedNatInit},
    },
};
use proptest::{array, collection::vec, prelude::*};

fn ids() -> impl Strategy<Value = DeviceId> {
    any::<[u8; 14]>().prop_map(DeviceId::from_bytes)
}

/// Addresses as they come out of a decoder: canonical.
fn addresses() -> impl Strategy<Value = SocketAddr> {
    any::<[u8; 18]>().prop_map(|bytes| addr::decode(&bytes)).boxed().prop_union(
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::from((ip, port))).boxed(),
    )
}

fn texts() -> impl Strategy<Value = String> {
    "\\PC{0,60}"
}

/// Bytes that look like a message: a type that exists more often than not.
fn arbitrary_bytes() -> impl Strategy<Value = Vec<u8>> {
    (prop_oneof![0u8..0x35, any::<u8>()], vec(any::<u8>(), 0..400)).prop_map(|(kind, mut bytes)| {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        bytes
    })
}

fn base_frames() -> impl Strategy<Value = BaseFrame<'static>> {
    let hello = (any::<u8>(), any::<[u8; 8]>(), ids(), ids(), any::<u32>()).prop_map(
        |(version, cookie, base, cluster, capabilities)| {
            BaseFrame::BaseHello(BaseHello { version, cookie, base, cluster, capabilities })
        },
    );
    let registered = (addresses(), any::<u16>(), vec(addresses(), 0..=4))
        .prop_map(|(seen, keepalive, udp)| BaseFrame::Registered(Registered { seen, keepalive, udp }));
    let error = (any::<u8>(), any::<u16>(), texts()).prop_map(|(code, retry_after, text)| {
        BaseFrame::Error(tcp::Error { code: ErrorCode::from_u8(code), retry_after, text })
    });
    let flags = (any::<bool>(), any::<bool>());
    let told = (ids(), flags, any::<[u8; 16]>(), vec(addresses(), 0..=4), vec(addresses(), 0..=12)).prop_map(
        |(device, (online, joined), key, reflexive, own)| {
            let introduction = IntroductionKey(key);
            BaseFrame::DeviceAddresses(DeviceAddresses {
                device,
                online,
                joined,
                introduction,
                reflexive,
                own,
            })
        },
    );
    prop_oneof![
        hello,
        registered,
        error,
        told,
        any::<u64>().prop_map(BaseFrame::Pong),
        (ids(), any::<u8>())
            .prop_map(|(id, why)| BaseFrame::Unreachable(id, UnreachableReason::from_u8(why))),
        any::<u16>().prop_map(BaseFrame::GoAway),
        ids().prop_map(BaseFrame::Wanted),
        (any::<u8>(), texts())
            .prop_map(|(code, text)| BaseFrame::Notice(Notice { code: NoticeCode::from_u8(code), text })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_decoder_panics(bytes in arbitrary_bytes()) {
        let _ = HostFrame::decode(&bytes);
        let _ = BaseFrame::decode(&bytes);
        let _ = BaseDatagram::decode(&bytes);
        let _ = UnverifiedNatInit::decode(&bytes);
        let _ = NatConfirm::decode(&bytes);
        let _ = relay::split(&bytes);
        let _ = announce::decode(&bytes);
        let _ = PeerDatagram::decode(&bytes);
        let _ = PeerDatagram::decode(&[&MAGIC[..], &bytes].concat());
    }

    #[test]
    fn what_a_base_writes_is_what_a_host_reads(frame in base_frames()) {
        let mut out = Vec::new();
        frame.write(&mut out);
        prop_assert_eq!(usize::from(u16::from_be_bytes([out[0], out[1]])), out.len() - LENGTH_LEN);
        prop_assert_eq!(BaseFrame::decode(&out[LENGTH_LEN..]), Ok(frame));
    }

    #[test]
    fn what_a_host_writes_is_what_a_base_reads(
        (highest_version, capabilities, number) in (1u8.., any::<u32>(), any::<u64>()),
        master_key in any::<[u8; 16]>(),
        own in vec(addresses(), 0..=12),
    ) {
        let mut out = Vec::new();
        let asked = GetCookie { highest_version, capabilities };
        asked.write(&mut out);
        prop_assert!(matches!(HostFrame::decode(&out[LENGTH_LEN..]), Ok(HostFrame::GetCookie(read)) if read == asked));
        out.clear();
        let info = Info { number, master_key, own };
        info.write(&mut out);
        prop_assert!(matches!(HostFrame::decode(&out[LENGTH_LEN..]), Ok(HostFrame::Info(read)) if read == info));
    }

    #[test]
    fn addresses_return_in_canonical_form(bytes in any::<[u8; 18]>()) {
        let address = addr::decode(&bytes);
        prop_assert_eq!(addr::canonical(address), address);
        prop_assert_eq!(addr::encode(address), bytes);
    }

    #[test]
    fn nat_messages_return(
        (cookie, seq, challenge, confirmed, seen) in
            (any::<[u8; 8]>(), any::<u64>(), any::<[u8; 8]>(), any::<bool>(), addresses()),
        padded in 0usize..1_300,
    ) {
        let ok = NatOk { cookie, seq, challenge, confirmed, seen };
        prop_assert_eq!(NatOk::decode(&ok.encode(padded)), Ok(ok));
        let confirm = NatConfirm { cookie, seq, challenge };
        prop_assert_eq!(NatConfirm::decode(&confirm.encode()), Ok(confirm));
    }

    #[test]
    fn a_stream_cut_anywhere_gives_its_frames(
        bodies in vec(vec(any::<u8>(), 1..300), 1..8),
        cuts in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut stream = Vec::new();
        for body in &bodies {
            bowline_proto::wire::frame::write(&mut stream, |out| out.extend_from_slice(body));
        }
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let (mut frames, mut read) = (Frames::default(), Vec::new());
        for piece in at.windows(2) {
            frames.buffer().extend_from_slice(&stream[piece[0]..piece[1]]);
            while let Some(frame) = frames.next_frame().unwrap() {
                read.push(frame.to_vec());
            }
        }
        prop_assert_eq!(read, bodies);
        prop_assert!(frames.buffer().is_empty());
    }

    #[test]
    fn an_arbitrary_stream_gives_frames_within_the_limit_or_ends(
        pieces in vec(vec(prop_oneof![Just(0u8), any::<u8>()], 0..200), 0..10),
    ) {
        let mut frames = Frames::default();
        'stream: for piece in &pieces {
            frames.buffer().extend_from_slice(piece);
            loop {
                match frames.next_frame() {
                    Ok(Some(frame)) => prop_assert!((1..=MAX_FRAME).contains(&frame.len())),
                    Ok(None) => break,
                    Err(_) => {
                        // A lost stream stays lost, whatever comes.
                        frames.buffer().extend_from_slice(&[0; 9]);
                        prop_assert!(frames.next_frame().is_err());
                        break 'stream;
                    }
                }
            }
        }
    }

    #[test]
    fn data_returns_from_a_direct_path_whatever_it_is(
        data in prop_oneof![
            vec(any::<u8>(), 0..40),
            vec(any::<u8>(), 0..40).prop_map(|tail| [&MAGIC[..], &tail].concat()),
        ],
    ) {
        let sent =
            if peer::needs_escape(&data) { [&peer::escape_prefix(), data.as_slice()].concat() } else { data.clone() };
        prop_assert!(matches!(PeerDatagram::decode(&sent), Ok(PeerDatagram::Data(read)) if read == data));
    }

    #[test]
    fn a_relayed_message_is_rewritten_in_place((to, from) in (ids(), ids()), data in vec(any::<u8>(), 0..100)) {
        let mut message = [&relay::header(relay::SEND_DATA, to), data.as_slice()].concat();
        prop_assert_eq!(relay::split(&message), Ok((to, data.as_slice())));
        relay::rewrite(&mut message, from).unwrap();
        prop_assert_eq!(message[0], relay::RECV_DATA);
        prop_assert_eq!(relay::split(&message), Ok((from, data.as_slice())));
    }

    #[test]
    fn ids_return_from_their_text_and_typing_mistakes_are_rare_survivors(id in ids(), text in ".{0,40}") {
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        if let Ok(read) = text.parse::<DeviceId>() {
            prop_assert_eq!(text.replace('-', "").len(), read.to_string().replace('-', "").len());
        }
    }
}

proptest! {
    // Signatures take their time.
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn signed_messages_return_and_hold_for_what_they_were_made_for(
        seed in any::<[u8; 32]>(),
        (base, other) in (ids(), ids()),
        (cookie, boot, attempt, seq, index) in
            (any::<[u8; 8]>(), any::<[u8; 8]>(), any::<u32>(), any::<u64>(), any::<u8>()),
        agent in texts(),
        own in vec(addresses(), 0..=12),
        (token, introduction) in (array::uniform16(any::<u8>()), array::uniform16(any::<u8>())),
        padded in 0usize..1_300,
    ) {
        let key = SecretKey::from_seed(&seed);
        let register = Register {
            device: key.device_id(),
            public_key: key.public(),
            boot,
            attempt,
            capabilities: 0,
            agent,
        };
        let mut out = Vec::new();
        register.write(&mut out, &key, base, &cookie);
        let read = || match HostFrame::decode(&out[LENGTH_LEN..]) {
            Ok(HostFrame::Register(read)) => read,
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(read().verify(base, &cookie), Some(register));
        prop_assert_eq!(read().verify(other, &cookie), None);

        let init = NatInit { cookie, seq, own };
        let bytes = init.encode(&key, base, index, padded);
        let read = || UnverifiedNatInit::decode(&bytes).unwrap();
        prop_assert_eq!(read().verify(&key.public(), base, index), Some(init));
        prop_assert_eq!(read().verify(&key.public(), base, index.wrapping_add(1)), None);
        prop_assert_eq!(read().verify(&PublicKey([3; 32]), base, index), None);

        let introduction = IntroductionKey(introduction);
        let bytes = Hello::encode(other, token, &introduction, &key, 0, padded);
        let Ok(PeerDatagram::Hello(hello)) = PeerDatagram::decode(&bytes) else { panic!("no HELLO") };
        prop_assert_eq!(hello.is_introduced_by(&introduction), introduction != IntroductionKey::NONE);
        let (initiator, responder, public_key) = (key.device_id(), other, key.public());
        prop_assert_eq!(hello.verify(&mut KnownKeys::default()), Some(Hello { initiator, responder, public_key, token }));

        let bytes = HelloReply::encode(other, token, &key);
        let Ok(PeerDatagram::HelloReply(reply)) = PeerDatagram::decode(&bytes) else { panic!("no reply") };
        let (initiator, responder) = (other, key.device_id());
        prop_assert_eq!(reply.verify(&mut KnownKeys::default()), Some(HelloReply { initiator, responder, public_key, token }));
    }
}
