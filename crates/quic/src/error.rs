//! Errors, one type an operation, in sentences that say which device did what.

use bowline::DeviceId;
use quinn::{ConnectionError, TransportErrorCode};

/// Why an endpoint could not be made, or could not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// Those who dial a device expect its own key.
    #[error("the key is that of {key}, but the endpoint is {endpoint}: whoever dials that would refuse it")]
    OtherKey {
        /// The device whose key was given.
        key: DeviceId,
        /// The device that others dial.
        endpoint: DeviceId,
    },
    /// It listens already.
    #[error("this endpoint listens already")]
    ListensAlready,
    /// TLS does not take the key or the services.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// There is no Tokio runtime here.
    #[error("the runtime does not work here: {0}")]
    Runtime(std::io::Error),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A device does not connect to itself.
    #[error("{0} is this device itself")]
    Oneself(DeviceId),
    /// Nothing came back.
    #[error("{device} did not answer within {seconds} s: {why}")]
    NoAnswer {
        /// The device.
        device: DeviceId,
        /// How long that was.
        seconds: u64,
        /// What is known of the way there.
        why: String,
    },
    /// Somebody else answered.
    #[error(
        "what answered for {device} has the key of {shown}: it is not that device, so nothing was sent to it"
    )]
    OtherKey {
        /// The device that was dialled.
        device: DeviceId,
        /// The device whose key was shown.
        shown: DeviceId,
    },
    /// The other end, or TLS, ended it.
    #[error("{0}")]
    Ended(String),
    /// This end cannot even begin.
    #[error("the connection cannot be set up: {0}")]
    Local(String),
}

/// The alert of a peer that does not take this device's key.
const ACCESS_DENIED: u8 = 49;
/// The alert of a peer without such a service.
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// What the end of a connection means, in a sentence that names the device.
#[must_use]
pub fn explain(device: DeviceId, own: DeviceId, error: &ConnectionError) -> String {
    let is = |code: TransportErrorCode, alert: u8| code == TransportErrorCode::crypto(alert);
    match error {
        ConnectionError::ConnectionClosed(close) if is(close.error_code, ACCESS_DENIED) => {
            format!("{device} refused this device: {own} is not in its allow list")
        }
        ConnectionError::ConnectionClosed(close) if is(close.error_code, NO_APPLICATION_PROTOCOL) => {
            format!("{device} does not offer this: another command is running there")
        }
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            format!("{device} refused the connection: it takes none from here at present")
        }
        ConnectionError::ConnectionClosed(close) => format!("{device} ended the connection: {close}"),
        ConnectionError::ApplicationClosed(close) if close.reason.is_empty() => {
            format!("{device} ended the connection")
        }
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            format!("{device} ended the connection: {}", printable(&reason))
        }
        ConnectionError::TimedOut => format!("{device} has been silent for too long: the connection is lost"),
        ConnectionError::Reset => {
            format!("{device} does not know this connection any more: it was restarted")
        }
        ConnectionError::LocallyClosed => "the connection was closed here".to_owned(),
        ConnectionError::VersionMismatch => format!("{device} speaks another version of QUIC"),
        other => format!("the connection to {device} failed: {other}"),
    }
}

/// What a peer says must not steer a terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
