//! The admin address: what a base is doing, for programs and for people, over HTTP. It only tells; nothing can be changed by it.
//!
//! - `/metrics`: OpenMetrics ([`metrics`]); `/health`: whether the owner of the machine answers; `/ready`: whether devices may come
//! - `/`: a page for people ([`page`]), which asks `/status.json` once a second
//!
//! Whoever reaches the address sees device IDs and addresses, so it belongs on the loopback. A web site that a person's browser is tricked
//! into asking there sends its own name as `Host`: names other than `localhost` are refused.

mod metrics;
mod page;

use std::{convert::Infallible, io, net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use crate::control::{Handle, Snapshot};

/// Connections at a time; others wait in the system's queue.
const CONNECTIONS: usize = 32;
/// Patience with whoever does not ask.
const ASK_WITHIN: Duration = Duration::from_secs(15);
/// A connection is over then, whatever it does: who asks often opens another.
const LONGEST: Duration = Duration::from_secs(300);
/// The owner that does not answer for as long is not well.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Devices on the page.
const DEVICES: usize = 200;
/// Pause when the system has no descriptor for one more connection.
const PAUSE: Duration = Duration::from_millis(200);

type Answer = Response<Full<Bytes>>;

/// Opens the address.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the admin address is open to the network: whoever reaches it sees devices and their addresses");
    }
    TcpListener::from_std(listener)
}

/// Serves until the base ends.
pub(crate) async fn serve(listener: TcpListener, base: Handle) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "admin address");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            () = base.control.closed() => return,
        };
        let base = base.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(request, base.clone()));
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(ASK_WITHIN).max_buf_size(16 << 10);
            let served = timeout(LONGEST, server.serve_connection(TokioIo::new(stream), answer)).await;
            if let Ok(Err(error)) = served {
                tracing::debug!(%error, "admin address");
            }
            drop(place);
        });
    }
}

async fn answer(request: Request<Incoming>, base: Handle) -> Result<Answer, Infallible> {
    let answer = if !is_asked_by_address(&request) {
        text(StatusCode::FORBIDDEN, "ask by the address itself or by `localhost`: names are refused here\n")
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        text(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here\n")
    } else {
        route(request.uri().path(), &base).await
    };
    Ok(answer)
}

async fn route(path: &str, base: &Handle) -> Answer {
    if let Some((kind, content)) = page::file(path) {
        return body(StatusCode::OK, kind, content);
    }
    let (devices, tell): (usize, fn(&Snapshot) -> Answer) = match path {
        "/metrics" => (0, |now| match metrics::text(now) {
            Ok(text) => body(StatusCode::OK, metrics::CONTENT_TYPE, text),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }),
        "/status.json" => (DEVICES, |now| body(StatusCode::OK, "application/json", page::status(now))),
        "/health" => (0, |_| text(StatusCode::OK, "ok\n")),
        "/ready" => (0, |now| match unready(now) {
            None => text(StatusCode::OK, "ready\n"),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n")),
        }),
        _ => return text(StatusCode::NOT_FOUND, "there are /, /metrics, /health, /ready and /status.json\n"),
    };
    match timeout(ANSWER_WITHIN, base.inspect(devices)).await {
        Ok(Some(now)) => tell(&now),
        _ => text(StatusCode::SERVICE_UNAVAILABLE, "the base does not answer\n"),
    }
}

/// Why devices should not be sent here, if there is a reason.
fn unready(now: &Snapshot) -> Option<&'static str> {
    match now {
        Snapshot { draining: true, .. } => Some("draining: devices have been told to leave"),
        Snapshot { short_of_memory: true, .. } => Some("short of memory: no new devices are taken"),
        _ => None,
    }
}

/// Whether the request names an IP address or `localhost`, as everybody does who means this address.
fn is_asked_by_address<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host else { return true };
    let name =
        host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn text(status: StatusCode, text: &str) -> Answer {
    body(status, "text/plain; charset=utf-8", text.to_owned())
}

fn body(status: StatusCode, kind: &'static str, content: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(content.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    );
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_taken_as_names() {
        let asked =
            |host: &str| is_asked_by_address(&Request::builder().header(HOST, host).body(()).unwrap());
        assert!(
            asked("127.0.0.1:4480") && asked("[::1]:4480") && asked("localhost:4480") && asked("LOCALHOST")
        );
        assert!(asked("192.0.2.1") && asked("[::1]"));
        assert!(!asked("evil.example") && !asked("evil.example:4480") && !asked("127.0.0.1.evil.example"));
        assert!(is_asked_by_address(&Request::new(())));
    }
}
