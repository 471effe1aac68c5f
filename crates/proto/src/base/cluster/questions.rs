//! What is asked of the store: so many questions at one time, the rest when answers have come.

use super::{Base, BusOutput};
use crate::{base::config::MAX_FINDS, id::DeviceId};

impl Base {
    /// Reads the entry of a device, or later, when others have been answered.
    pub(super) fn find(&mut self, device: DeviceId) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.is_up()) else { return };
        if cluster.asked.contains(&device) {
            return;
        }
        if cluster.asked.len() < MAX_FINDS {
            cluster.asked.insert(device);
            self.bus(BusOutput::Find(device));
        } else if cluster.queued.insert(device) {
            cluster.to_ask.push_back(device);
        }
    }

    pub(super) fn ask_more(&mut self) {
        while let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.is_up())
            && cluster.asked.len() < MAX_FINDS
            && let Some(device) = cluster.to_ask.pop_front()
        {
            cluster.queued.remove(&device);
            self.find(device);
        }
    }

    /// An answer has come, whatever it is.
    pub(super) fn answered(&mut self, device: DeviceId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.asked.remove(&device);
        }
        self.ask_more();
    }

    /// Asks again after a while: at the next tick.
    pub(super) fn find_later(&mut self, device: DeviceId) {
        if let Some(cluster) = &mut self.cluster
            && cluster.queued.insert(device)
        {
            cluster.to_ask.push_back(device);
        }
    }
}
