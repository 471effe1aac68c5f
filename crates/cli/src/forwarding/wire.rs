//! Requests and answers: JSON behind a length of two bytes, big-endian, 4,096 bytes at most.
//!
//! ```text
//! who dialled opens a stream    {"connect":"localhost:22"}          the answer, then the socket's bytes
//!                               {"listen":{"at":"localhost:80","id":1}}  the answer; it listens for as long as the stream is open
//! who was dialled opens one     {"arrived":1}                       a socket that came in there; its bytes follow at once
//! answers                       {"ok":"…"}  {"refused":"…"}  {"failed":"…"}
//! ```

use bowline_quic::{
    printable,
    quinn::{RecvStream, SendStream},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::spec::Place;
use crate::streams::StreamError;

const LENGTH: usize = 4096;

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Request {
    Connect(Place),
    Listen { at: Place, id: u32 },
    Arrived(u32),
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    /// Where it is connected to, or listens.
    Ok(String),
    /// It is not allowed.
    Refused(String),
    /// It is allowed, and does not work.
    Failed(String),
}

impl Answer {
    /// What was refused or failed, in words; what is printed came from elsewhere.
    pub(crate) fn into_result(self) -> Result<String, String> {
        match self {
            Self::Ok(text) => Ok(printable(&text)),
            Self::Refused(why) | Self::Failed(why) => Err(printable(&why)),
        }
    }
}

pub(crate) async fn write(send: &mut SendStream, message: &impl Serialize) -> Result<(), StreamError> {
    let text =
        serde_json::to_vec(message).map_err(|error| StreamError::local("not to be written", &error))?;
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    send.write_all(&[&length.to_be_bytes()[..], &text].concat()).await?;
    Ok(())
}

pub(crate) async fn read<T: DeserializeOwned>(receive: &mut RecvStream) -> Result<T, StreamError> {
    let mut length = [0; 2];
    receive.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > LENGTH {
        return Err(StreamError::Local("the other end speaks another protocol".to_owned()));
    }
    let mut text = vec![0; length];
    receive.read_exact(&mut text).await?;
    serde_json::from_slice(&text)
        .map_err(|error| StreamError::local("the other end speaks another protocol", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_are_fixed() {
        let listen = Request::Listen { at: "localhost:80".parse().unwrap(), id: 1 };
        for (request, text) in [
            (Request::Connect("localhost:22".parse().unwrap()), r#"{"connect":"localhost:22"}"#),
            (Request::Connect("/run/a.sock".parse().unwrap()), r#"{"connect":"/run/a.sock"}"#),
            (listen, r#"{"listen":{"at":"localhost:80","id":1}}"#),
            (Request::Arrived(1), r#"{"arrived":1}"#),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
        assert_eq!(serde_json::to_string(&Answer::Refused("why".into())).unwrap(), r#"{"refused":"why"}"#);
    }

    #[test]
    fn nonsense_is_no_request() {
        for text in
            [r#"{"connect":"nowhere"}"#, r#"{"connect":""}"#, "{}", r#"{"arrived":-1}"#, r#"{"exec":"sh"}"#]
        {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }
}
