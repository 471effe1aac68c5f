//! The echo datagram: how `bowline ping` measures and `bowline listen` answers.
//!
//! The layer carries datagrams and nothing else, so an echo is an agreement between these two commands, made of
//! ordinary data that no sensible message begins with:
//!
//! `mark 16 ‖ kind u8 (1 request, 2 reply) ‖ run u64 ‖ number u32 ‖ anything`, numbers in network byte order
//!
//! A reply is its request with another kind: never longer than what caused it, and never answered itself.

/// What every echo begins with: a NUL byte, a name and its version, a line feed.
const MARK: [u8; 16] = *b"\0bowline echo 1\n";
const KIND: usize = MARK.len();
const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// Bytes of a request.
pub(crate) const LEN: usize = KIND + 1 + 8 + 4;

/// The request of this number; `run` tells one run of ping from another.
pub(crate) fn request(run: u64, number: u32) -> [u8; LEN] {
    let mut request = [0; LEN];
    request[..KIND].copy_from_slice(&MARK);
    request[KIND] = REQUEST;
    request[KIND + 1..KIND + 9].copy_from_slice(&run.to_be_bytes());
    request[KIND + 9..].copy_from_slice(&number.to_be_bytes());
    request
}

/// The answer, if this is a request.
pub(crate) fn answer(data: &[u8]) -> Option<Vec<u8>> {
    if data.len() < LEN || !data.starts_with(&MARK) || data[KIND] != REQUEST {
        return None;
    }
    let mut reply = data.to_vec();
    reply[KIND] = REPLY;
    Some(reply)
}

/// The number of the request that this is the reply to, if it belongs to this run.
pub(crate) fn answered(run: u64, data: &[u8]) -> Option<u32> {
    let number = u32::from_be_bytes(*data.last_chunk()?);
    let mut expected = request(run, number);
    expected[KIND] = REPLY;
    (data == expected).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_with_its_own_number_and_length() {
        let request = request(77, 5);
        let reply = answer(&request).unwrap();
        assert_eq!(reply.len(), request.len());
        assert_eq!(answered(77, &reply), Some(5));
    }

    #[test]
    fn neither_replies_nor_fragments_nor_other_data_are_answered() {
        let request = request(77, 5);
        assert_eq!(answer(&answer(&request).unwrap()), None);
        for length in 0..request.len() {
            assert_eq!(answer(&request[..length]), None, "{length} bytes");
        }
        assert_eq!(answer(&[b'x'; 100]), None);
    }

    #[test]
    fn replies_to_others_and_altered_ones_do_not_count() {
        let reply = answer(&request(77, 5)).unwrap();
        assert_eq!(answered(78, &reply), None);
        assert_eq!(answered(77, &request(77, 5)), None);
        for position in 0..KIND {
            let mut altered = reply.clone();
            altered[position] ^= 1;
            assert_eq!(answered(77, &altered), None, "byte {position}");
        }
        assert_eq!(answered(77, &reply[1..]), None);
        assert_eq!(answered(77, &[]), None);
    }

    #[test]
    fn an_echo_is_plain_data_on_a_direct_path() {
        assert!(!bowline_proto::wire::peer::needs_escape(&request(1, 1)));
    }
}
