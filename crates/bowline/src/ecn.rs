//! Marks of congestion (ECN, RFC 3168): the two bits that IP carries beside a datagram, and that routers change instead of dropping it.

/// The ECN field of a datagram (RFC 3168, section 5).
///
/// It crosses direct paths alone: whatever comes through a base is [`Ecn::NotEct`]. Who sends anything else has to hear from
/// the other end what became of it, and to slow down for a [`Ecn::Ce`] as for a loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// Not-ECT: routers that are congested drop it. Also what is said where the mark is not known.
    #[default]
    NotEct = 0b00,
    /// ECT(1), which is for experiments (RFC 8311) and L4S (RFC 9331).
    Ect1 = 0b01,
    /// ECT(0): routers that are congested may mark it instead of dropping it.
    Ect0 = 0b10,
    /// CE: congestion experienced.
    Ce = 0b11,
}

impl Ecn {
    /// As `quinn-udp` has it.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn to_udp(self) -> Option<quinn_udp::EcnCodepoint> {
        quinn_udp::EcnCodepoint::from_bits(self as u8)
    }

    pub(crate) fn from_udp(codepoint: Option<quinn_udp::EcnCodepoint>) -> Self {
        match codepoint {
            None => Self::NotEct,
            Some(quinn_udp::EcnCodepoint::Ect1) => Self::Ect1,
            Some(quinn_udp::EcnCodepoint::Ect0) => Self::Ect0,
            Some(quinn_udp::EcnCodepoint::Ce) => Self::Ce,
        }
    }
}
