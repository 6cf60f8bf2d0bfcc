//! A letter: an announcement on its way to its channels.

use super::message::Message;
use super::plan::Channel;
use crate::core::Timestamp;
use crate::core::announcement::Announcement;
use crate::store::{Delivery, DeliveryState, Matter, Outgoing};

/// An announcement on its way.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    /// Its number in the outbox; none if the store did not take it.
    pub(super) id: Option<i64>,
    pub(super) announcement: Announcement,
    pub(super) deliveries: Vec<Delivery>,
    /// The matter that it is about, as it was when the letter was read.
    pub(super) matter: Option<Matter>,
    /// Something of it is not in the outbox yet.
    pub(super) dirty: bool,
}

impl Letter {
    pub(super) fn new(announcement: Announcement) -> Self {
        Self { id: None, announcement, deliveries: Vec::new(), matter: None, dirty: false }
    }

    pub(super) fn stored(outgoing: Outgoing) -> Self {
        Self { id: Some(outgoing.id), deliveries: outgoing.deliveries, ..Self::new(outgoing.announcement) }
    }

    /// Whom it is about; empty for the fleet.
    pub(super) fn subject(&self) -> &str {
        self.announcement.service.as_ref().map_or("", |service| service.as_str())
    }

    pub(super) fn delivery(&self, channel: &str) -> Option<&Delivery> {
        self.deliveries.iter().find(|delivery| delivery.channel == channel)
    }

    pub(super) fn delivery_mut(&mut self, channel: &str) -> Option<&mut Delivery> {
        self.deliveries.iter_mut().find(|delivery| delivery.channel == channel)
    }

    /// Puts it down for a channel, in the words that it will be said in. Nothing if the channel is not told of such.
    pub(super) fn address(&mut self, channel: &Channel, now: Timestamp) {
        if self.delivery(&channel.name).is_some() {
            return;
        }
        let Some(message) = Message::of(&self.announcement, channel, self.matter.as_ref()) else { return };
        self.deliveries.push(Delivery {
            channel: channel.name.clone(),
            message: message.kept(),
            attempts: 0,
            next: now,
            state: DeliveryState::Waiting,
            last_error: None,
        });
        self.dirty = true;
    }

    /// What is sent over a channel: as it was written, unless the channel is another kind of thing by now.
    pub(super) fn message(&mut self, channel: &Channel) -> Option<Message> {
        let (announcement, matter) = (self.announcement.clone(), self.matter.clone());
        let delivery = self.delivery_mut(&channel.name)?;
        let kept = serde_json::from_str::<Message>(&delivery.message).ok();
        if let Some(kept) = kept.filter(|kept| kept.suits(&channel.medium)) {
            return Some(kept);
        }
        let anew = Message::of(&announcement, channel, matter.as_ref())?;
        delivery.message = anew.kept();
        Some(anew)
    }

    /// Whether nothing of it waits.
    pub(super) fn is_settled(&self) -> bool {
        self.deliveries.iter().all(|delivery| delivery.state != DeliveryState::Waiting)
    }

    pub(super) fn was_delivered(&self) -> bool {
        self.deliveries.iter().any(|delivery| matches!(delivery.state, DeliveryState::Delivered(_)))
    }
}
