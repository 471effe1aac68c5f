//! Where the system does not tell how many datagrams a socket lost.

pub(super) fn drops<S>(_socket: &S) -> u64 {
    0
}
