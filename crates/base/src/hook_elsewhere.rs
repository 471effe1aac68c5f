//! Asks the operator's own service whether a device may be here: on Linux alone, so far. Elsewhere a base that is to ask does not start.

use std::time::Instant;

use bowline_proto::{
    DeviceId,
    base::{Answer, ConnId},
};
use tokio::sync::mpsc;

use crate::{config::HookConfig, control::Control};

/// Why the service cannot be asked at all.
#[derive(Debug, thiserror::Error)]
#[error("a base on this system cannot ask a service about devices; use `allow_file`")]
pub struct HookError;

/// Never made.
#[derive(Debug)]
pub(crate) enum Hook {}

impl Hook {
    pub(crate) fn new(_: &HookConfig, _: mpsc::Sender<Control>) -> Result<Self, HookError> {
        Err(HookError)
    }

    pub(crate) fn ask(&mut self, _: ConnId, _: DeviceId, _: Instant) -> Option<Answer> {
        match *self {}
    }

    pub(crate) fn answered(&mut self, _: DeviceId, _: Answer, _: Instant) {
        match *self {}
    }

    pub(crate) fn confirmed(&mut self, _: DeviceId, _: Answer, _: Instant) -> bool {
        match *self {}
    }

    pub(crate) fn doubt(&mut self, _: DeviceId, _: Instant) {
        match *self {}
    }

    pub(crate) fn confirm(&mut self, _: impl Fn(DeviceId) -> bool, _: Instant) {
        match *self {}
    }
}
