//! Asks the operator's own service whether a device may be here, over HTTP.
//!
//! `GET <url>?device=<ID>`: 200 or 204 say yes, 403 or 404 no. Anything else, and no answer within 1.5 s, mean that nobody knows:
//! the device is not let in, and told to come back (it *fails closed*). Answers are remembered for a while; a device that is
//! here is asked about again when its answer has aged, and sent away if that has become a no. While the service is gone those who
//! are here stay.
//!
//! What asks is bounded: so many questions at once, so many answers remembered.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    time::{Duration, Instant},
};

use bowline_proto::{
    DeviceId,
    base::{Answer, ConnId},
};
use reqwest::{Client, StatusCode, Url, header, redirect};
use tokio::sync::mpsc;

use crate::{config::HookConfig, control::Control};

/// A host gives up on a base that does not answer REGISTER within 2 s.
const TIMEOUT: Duration = Duration::from_millis(1_500);
/// Questions on their way; a device that comes while there are as many is told to come back.
const QUESTIONS: usize = 128;
/// Answers that are remembered; with as many, those that have aged go, or else any.
const ANSWERS: usize = 131_072;
/// A device that is here is asked about again so soon when nobody knew.
const AGAIN: Duration = Duration::from_secs(10);
/// Devices that are here and asked about again, each second.
const CONFIRMED_A_SECOND: usize = 256;

/// Why the service cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The URL.
    #[error("the URL of the hook '{url}' is wrong: {why}")]
    Url {
        /// As it was written.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file with the token.
    #[error("the file with the token for the hook cannot be used: {path}: {why}")]
    Token {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// No client can be made: mostly, no certificates of authorities.
    #[error("the hook cannot be asked: {0}")]
    Client(String),
}

/// The service, and what it said.
#[derive(Debug)]
pub(crate) struct Hook {
    client: Client,
    url: Url,
    /// How long a yes and a no count.
    yes: Duration,
    no: Duration,
    answers: HashMap<DeviceId, (bool, Instant)>,
    /// Devices that were let in by an answer, with the moment at which it has aged.
    here: VecDeque<(Instant, DeviceId)>,
    asking: usize,
    owner: mpsc::Sender<Control>,
}

impl Hook {
    pub(crate) fn new(config: &HookConfig, owner: mpsc::Sender<Control>) -> Result<Self, HookError> {
        let wrong = |why: String| HookError::Url { url: config.url.clone(), why };
        let form = "it begins with http:// or https:// and names a host";
        let url = Url::parse(&config.url).map_err(|error| wrong(format!("{error}; {form}")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong(form.to_owned()));
        }
        // Somebody else in this process may have chosen already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = header::HeaderMap::new();
        if let Some(path) = &config.token_file {
            let of_token = |why: String| HookError::Token { path: path.display().to_string(), why };
            let token = fs::read_to_string(path).map_err(|error| of_token(error.to_string()))?;
            let value = header::HeaderValue::from_str(&format!("Bearer {}", token.trim()));
            let mut value = value.map_err(|_| of_token("it is no single line of text".into()))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let client = Client::builder()
            .user_agent(concat!("bowline/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .timeout(TIMEOUT)
            // A token goes to whom it was meant for.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| HookError::Client(error.to_string()))?;
        Ok(Self {
            client,
            url,
            yes: Duration::from_secs(config.cache_seconds.into()),
            no: Duration::from_secs(config.refused_cache_seconds.into()),
            answers: HashMap::new(),
            here: VecDeque::new(),
            asking: 0,
            owner,
        })
    }

    /// Whether a device may register: at once if that is remembered (or nobody can be asked), else the answer comes later.
    pub(crate) fn ask(&mut self, conn: ConnId, device: DeviceId, now: Instant) -> Option<Answer> {
        match self.answers.get(&device) {
            Some(&(true, until)) if until > now => return Some(Answer::Allowed),
            Some(&(false, until)) if until > now => return Some(Answer::Refused),
            _ => {}
        }
        let asked = self.question(device, move |answer| Control::Answered { conn, device, answer });
        (!asked).then_some(Answer::Unknown)
    }

    /// An answer about a device that waits; it is remembered.
    pub(crate) fn answered(&mut self, device: DeviceId, answer: Answer, now: Instant) {
        self.asking -= 1;
        if self.remember(device, answer, now) {
            self.here.push_back((now + self.yes, device));
        }
    }

    /// An answer about a device that is here: whether it has to go.
    pub(crate) fn confirmed(&mut self, device: DeviceId, answer: Answer, now: Instant) -> bool {
        self.asking -= 1;
        if self.remember(device, answer, now) {
            self.here.push_back((now + self.yes, device));
        } else if answer == Answer::Unknown {
            self.here.push_back((now + AGAIN, device));
        }
        answer == Answer::Refused
    }

    /// A device that is here is no longer on the list: it may stay if the service says so.
    pub(crate) fn doubt(&mut self, device: DeviceId, now: Instant) {
        let known = self.answers.get(&device).is_some_and(|&(_, until)| until > now);
        // Those that are due wait in front. A list that changes without end finds them there already.
        if !known && self.here.len() < ANSWERS {
            self.here.push_front((now, device));
        }
    }

    /// Asks again about devices that are here, whose answers have aged. To be called every second.
    pub(crate) fn confirm(&mut self, is_here: impl Fn(DeviceId) -> bool, now: Instant) {
        for _ in 0..CONFIRMED_A_SECOND {
            let Some(&(aged, device)) = self.here.front() else { return };
            // Those that were to be asked again sooner wait for those before them: a yes lasts minutes, and nobody is let in by it.
            if aged > now || self.asking >= QUESTIONS {
                return;
            }
            self.here.pop_front();
            let renewed = self.answers.get(&device).is_some_and(|&(_, until)| until > now);
            if is_here(device) && !renewed {
                self.question(device, move |answer| Control::Confirmed { device, answer });
            }
        }
    }

    fn remember(&mut self, device: DeviceId, answer: Answer, now: Instant) -> bool {
        let (allowed, until) = match answer {
            Answer::Allowed => (true, now + self.yes),
            Answer::Refused => (false, now + self.no),
            Answer::Unknown => return false,
        };
        if self.answers.len() >= ANSWERS && !self.answers.contains_key(&device) {
            self.answers.retain(|_, &mut (_, until)| until > now);
            if self.answers.len() >= ANSWERS
                && let Some(&any) = self.answers.keys().next()
            {
                self.answers.remove(&any);
            }
        }
        self.answers.insert(device, (allowed, until));
        allowed
    }

    /// Sends a question, unless too many are on their way.
    fn question(&mut self, device: DeviceId, tell: impl FnOnce(Answer) -> Control + Send + 'static) -> bool {
        if self.asking >= QUESTIONS {
            return false;
        }
        self.asking += 1;
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("device", &device.to_string());
        let (request, owner) = (self.client.get(url), self.owner.clone());
        tokio::spawn(async move {
            let answer = match request.send().await.map(|response| response.status()) {
                Ok(StatusCode::OK | StatusCode::NO_CONTENT) => Answer::Allowed,
                Ok(StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => Answer::Refused,
                Ok(status) => {
                    tracing::warn!(%device, %status, "the hook answers neither yes nor no");
                    Answer::Unknown
                }
                Err(error) => {
                    tracing::warn!(%device, error = %error.without_url(), "the hook does not answer");
                    Answer::Unknown
                }
            };
            // The owner may have ended meanwhile.
            let _ = owner.send(tell(answer)).await;
        });
        true
    }
}
