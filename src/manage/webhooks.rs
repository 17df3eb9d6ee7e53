//! Webhooks: created, looked at, changed, paused and deleted.

use std::collections::BTreeMap;

use super::{
    LOST_RACES_AT_MOST, ManageError, Manager, Seed,
    fields::{self, check_name},
    first_of,
};
use crate::{
    clock::now_ms,
    domain::{
        Invalid,
        id::{StreamId, SubscriptionId},
        outcome::Reason,
        retry::RetryPolicy,
        signature::{check_secret, generate},
        subscription::{Secrets, State, Status, Subscription},
    },
    streams::Versioned,
};

/// A webhook that somebody asks for; the fields are those of docs/api.md.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewWebhook {
    pub url: String,
    pub events: Vec<String>,
    pub name: Option<String>,
    pub retry: Option<RetryInput>,
    /// Attempts after the first.
    pub retry_count: Option<u32>,
    pub timeout_seconds: Option<u32>,
    pub max_concurrency: Option<u32>,
    pub rate_limit_per_minute: Option<u32>,
    pub ordering: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub payload_format: Option<String>,
    /// Made up when absent.
    pub secret: Option<String>,
    /// `Some(false)` creates it paused.
    pub is_active: Option<bool>,
    /// What its id is made of; drawn when absent.
    pub seed: Option<Seed>,
}

/// Retries as they may be asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum RetryInput {
    /// By a preset's name.
    Preset(String),
    Policy(RetryPolicy),
}

/// A page of webhooks, in the order of their creation.
#[derive(Debug, Clone)]
pub struct WebhookPage {
    pub webhooks: Vec<Versioned>,
    /// The webhooks after this one come next.
    pub next: Option<SubscriptionId>,
}

/// A change of a webhook: `None` keeps a field, `Some(None)` gives it what it has when nothing is said at its creation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WebhookChange {
    pub url: Option<String>,
    pub events: Option<Vec<String>>,
    pub name: Option<Option<String>>,
    pub retry: Option<Option<RetryInput>>,
    pub retry_count: Option<Option<u32>>,
    pub timeout_seconds: Option<Option<u32>>,
    pub max_concurrency: Option<Option<u32>>,
    pub rate_limit_per_minute: Option<Option<u32>>,
    pub ordering: Option<Option<String>>,
    pub headers: Option<Option<BTreeMap<String, String>>>,
    pub payload_format: Option<Option<String>>,
    /// `false` pauses, `true` lets go on.
    pub is_active: Option<bool>,
}

impl Manager {
    /// Creates a webhook. The secrets that are made up for it are in the answer.
    ///
    /// # Errors
    /// What is wrong with a field, [`ManageError::AlreadyCreated`] for a `seed` that made a webhook before, or what is wrong
    /// with Redis.
    pub async fn create_webhook(&self, tenant: &str, new: NewWebhook) -> Result<Versioned, ManageError> {
        let status = if new.is_active == Some(false) { Status::Paused } else { Status::Active };
        let subscription = self.subscription(tenant, new)?;
        self.ensure_tenant(tenant).await?;
        let created = match status {
            Status::Paused => self.streams.create_paused_subscription(&subscription).await?,
            Status::Active | Status::Disabled => self.streams.create_subscription(&subscription).await?,
        };
        match created {
            Some(version) => Ok(Versioned { subscription, state: State { status, ..State::default() }, version }),
            None => Err(ManageError::AlreadyCreated { what: "webhook", id: subscription.id.to_string() }),
        }
    }

    fn subscription(&self, tenant: &str, new: NewWebhook) -> Result<Subscription, Invalid> {
        let name = new.name.unwrap_or_default();
        check_name(&name)?;
        let secret = new.secret.unwrap_or_else(|| generate(rand::random()));
        check_secret(&secret)?;
        let seed = new.seed.unwrap_or_else(Seed::draw);
        Ok(Subscription {
            id: SubscriptionId { ms: seed.ms, shard: self.streams.shard_of(tenant), random: seed.random },
            tenant: tenant.to_owned(),
            name,
            url: self.url(&new.url)?,
            events: fields::events(&new.events)?,
            retry: self.retry(new.retry, new.retry_count)?,
            timeout_seconds: self.timeout_seconds(new.timeout_seconds)?,
            max_concurrency: self.max_concurrency(new.max_concurrency)?,
            rate_limit_per_minute: self.rate_limit(new.rate_limit_per_minute)?,
            ordering: new.ordering.as_deref().map(fields::ordering).transpose()?.unwrap_or_default(),
            headers: fields::headers(new.headers)?,
            payload_format: new.payload_format.as_deref().map(fields::payload_format).transpose()?.unwrap_or_default(),
            secrets: Secrets::only(secret),
            ingest: Secrets::only(generate(rand::random())),
            created_at_ms: seed.ms,
            updated_at_ms: seed.ms,
        })
    }

    /// One webhook of a tenant.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's.
    pub async fn webhook(&self, tenant: &str, id: &str) -> Result<Versioned, ManageError> {
        let not_found = ManageError::NotFound("webhook");
        let Ok(id) = id.parse::<SubscriptionId>() else { return Err(not_found) };
        let found = self.streams.subscription(id).await?;
        found.filter(|webhook| webhook.subscription.tenant == tenant).ok_or(not_found)
    }

    /// A tenant's webhooks in the order of their creation: up to `limit`, those after `after` if given.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn webhooks(
        &self,
        tenant: &str,
        mut after: Option<SubscriptionId>,
        limit: usize,
    ) -> Result<WebhookPage, ManageError> {
        let mut found: Vec<Versioned> = Vec::new();
        // Some may be deleted between the two reads: a short page means that there are no more.
        while found.len() <= limit {
            let ids = self.streams.subscription_ids(tenant, after, limit + 1 - found.len()).await?;
            let Some(last) = ids.last() else { break };
            after = Some(*last);
            found.extend(self.streams.subscriptions(&ids).await?.into_iter().flatten());
        }
        let (webhooks, next) = first_of(found, limit, |webhook| webhook.subscription.id);
        Ok(WebhookPage { webhooks, next })
    }

    /// Changes a webhook. Whoever comes second when two change it at once changes what the first has made of it.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], or what is wrong with a field.
    pub async fn update_webhook(
        &self,
        tenant: &str,
        id: &str,
        change: WebhookChange,
    ) -> Result<Versioned, ManageError> {
        let is_active = change.is_active;
        let before = self.rewrite(tenant, id, |webhook| self.changed(webhook, change.clone())).await?;
        if let Some(wanted) = is_active
            && wanted != (before.state.status == Status::Active)
        {
            self.set_active(before.subscription.id, wanted).await?;
        }
        self.webhook(tenant, id).await
    }

    /// Writes what `change` makes of a webhook, and returns what it made it of: the newest, whoever else changes it.
    pub(super) async fn rewrite(
        &self,
        tenant: &str,
        id: &str,
        change: impl Fn(Subscription) -> Result<Subscription, Invalid>,
    ) -> Result<Versioned, ManageError> {
        for _ in 0..LOST_RACES_AT_MOST {
            let before = self.webhook(tenant, id).await?;
            let mut changed = change(before.subscription.clone())?;
            if changed == before.subscription {
                return Ok(before);
            }
            changed.updated_at_ms = now_ms();
            // Earlier failures say nothing about another address.
            let clears_faults = changed.url != before.subscription.url;
            if self.streams.update_subscription(&changed, before.version, clears_faults).await?.is_some() {
                return Ok(before);
            }
        }
        Err(ManageError::changed_by_others(format_args!("webhook {id}")))
    }

    fn changed(&self, mut webhook: Subscription, change: WebhookChange) -> Result<Subscription, Invalid> {
        if let Some(url) = change.url {
            webhook.url = self.url(&url)?;
        }
        if let Some(events) = change.events {
            webhook.events = fields::events(&events)?;
        }
        if let Some(name) = change.name {
            webhook.name = name.unwrap_or_default();
            check_name(&webhook.name)?;
        }
        match (change.retry, change.retry_count) {
            (None, None) => {}
            (None, Some(None)) => {
                let policy = RetryInput::Policy(webhook.retry.policy);
                webhook.retry = self.retry(Some(policy), None)?;
            }
            (None, Some(Some(count))) => {
                webhook.retry.count = count;
                webhook.retry.validate()?;
            }
            (Some(policy), count) => webhook.retry = self.retry(policy, count.flatten())?,
        }
        if let Some(seconds) = change.timeout_seconds {
            webhook.timeout_seconds = self.timeout_seconds(seconds)?;
        }
        if let Some(most) = change.max_concurrency {
            webhook.max_concurrency = self.max_concurrency(most)?;
        }
        if let Some(limit) = change.rate_limit_per_minute {
            webhook.rate_limit_per_minute = self.rate_limit(limit)?;
        }
        if let Some(ordering) = change.ordering {
            webhook.ordering = ordering.as_deref().map(fields::ordering).transpose()?.unwrap_or_default();
        }
        if let Some(headers) = change.headers {
            webhook.headers = fields::headers(headers.unwrap_or_default())?;
        }
        if let Some(format) = change.payload_format {
            webhook.payload_format = format.as_deref().map(fields::payload_format).transpose()?.unwrap_or_default();
        }
        Ok(webhook)
    }

    /// Deletes a webhook and what waits for it. Its attempts stay until they have aged.
    ///
    /// # Errors
    /// [`ManageError::NotFound`].
    pub async fn delete_webhook(&self, tenant: &str, id: &str) -> Result<(), ManageError> {
        let id = self.webhook(tenant, id).await?.subscription.id;
        if !self.streams.delete_subscription(id).await? {
            return Err(ManageError::NotFound("webhook"));
        }
        loop {
            match self.streams.purge(id).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    // It is deleted all the same: the upkeep clears what is left.
                    tracing::warn!(webhook_id = %id, %error, "what waited for a deleted webhook is cleared later");
                    return Ok(());
                }
            }
        }
    }

    /// Pauses a webhook: what is under way finishes, and it goes on collecting.
    ///
    /// # Errors
    /// [`ManageError::NotFound`].
    pub async fn pause_webhook(&self, tenant: &str, id: &str) -> Result<Versioned, ManageError> {
        let webhook = self.webhook(tenant, id).await?;
        self.set_active(webhook.subscription.id, false).await?;
        self.webhook(tenant, id).await
    }

    /// Lets a paused or disabled webhook go on. With `skip`, what has waited for it becomes dead letters first, so that
    /// it gets only what comes from now on.
    ///
    /// # Errors
    /// [`ManageError::NotFound`].
    pub async fn resume_webhook(&self, tenant: &str, id: &str, skip: bool) -> Result<Versioned, ManageError> {
        let webhook = self.webhook(tenant, id).await?;
        let subscription = webhook.subscription.id;
        if !skip {
            self.set_active(subscription, true).await?;
            return self.webhook(tenant, id).await;
        }
        // To its end, also when whoever asked goes away meanwhile: it must not be left paused.
        let manager = self.clone();
        let skipping = tokio::spawn(async move {
            if webhook.state.status == Status::Active {
                manager.set_active(subscription, false).await?;
            }
            let skipped = manager.skip_backlog(subscription).await;
            manager.set_active(subscription, true).await?;
            skipped
        });
        skipping.await.map_err(|error| ManageError::Conflict(format!("the backlog was not skipped: {error}")))??;
        self.webhook(tenant, id).await
    }

    async fn skip_backlog(&self, subscription: SubscriptionId) -> Result<(), ManageError> {
        let Some(last) = self.streams.backlog_end(subscription).await? else { return Ok(()) };
        let mut after = StreamId::ZERO;
        loop {
            let reason = "skipped when the webhook was resumed";
            match self.streams.drop_backlog(subscription, last, Reason::Overflow, reason, after).await? {
                (_, Some(next)) => after = next,
                (_, None) => return Ok(()),
            }
        }
    }

    async fn set_active(&self, id: SubscriptionId, is_active: bool) -> Result<(), ManageError> {
        if self.streams.set_active(id, is_active).await? { Ok(()) } else { Err(ManageError::NotFound("webhook")) }
    }
}
