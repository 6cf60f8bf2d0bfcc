//! `[notify]`: from what was typed to the plan of announcements. Reads secrets and templates, and finds what does not hold
//! together: keys of another type of channel, channels that nobody knows, templates with mistakes.

use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;

use super::announce::{BearerToken, Listed, MediumWord, Password, RoutingKey, SigningSecret, kind};
use super::file::{Notify, NotifyChannel, NotifyEscalation, NotifyRoute};
use super::layers::read_text;
use super::locate::Places;
use super::nearest::nearest;
use super::problem::{Problem, Wrong};
use super::requests::HostFile;
use super::schema::Findings;
use super::secret;
use super::tree::dotted;
use super::values::{Parse, SecretFile, SecretUrl};
use crate::core::announcement::AnnouncementKind;
use crate::notify::plan::{Audience, Channel, Endpoint, Escalation, Level, Medium, Plan, Route, Secret};
use crate::notify::{
    Mail, MailTls, Mistake, PAGERDUTY_URL, READY, Shape, TEMPLATE_MAX, Template, mailbox, try_body, try_words,
};

/// How the level of `[notify.escalation]` itself is called.
pub(super) const FIRST_LEVEL: &str = "first";
/// How the channel of `[notify.webhook]` is called.
const SHORT: &str = "webhook";
/// More channels are a mistake: every announcement would go to all of them.
const CHANNELS_MAX: usize = 32;
/// A CA bundle of the whole world has 200 KiB.
const CA_MAX: u64 = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);
/// What a person has to answer, unless somebody says otherwise.
const ASKS: &[AnnouncementKind] =
    &[AnnouncementKind::Stuck, AnnouncementKind::Evaluate, AnnouncementKind::ApprovalWanted];

/// Keys that every type of channel has.
const COMMON: &[&str] = &["type", "enabled", "audience", "timeout", "text", "text_file", "ca_file"];

impl MediumWord {
    const fn name(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::PagerDuty => "pagerduty",
            Self::Email => "email",
            Self::Webhook => "webhook",
            Self::Alertmanager => "alertmanager",
        }
    }

    /// Keys that it has besides those that all have.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Slack => &["url", "url_file", "mention"],
            Self::PagerDuty => &["routing_key", "routing_key_file", "url", "url_file"],
            Self::Email => &["smtp", "tls", "user", "password", "password_file", "from", "to"],
            Self::Webhook => &[
                "url",
                "url_file",
                "token",
                "token_file",
                "secret",
                "secret_file",
                "template",
                "template_file",
                "mention",
            ],
            Self::Alertmanager => &["url", "url_file", "token", "token_file"],
        }
    }
}

/// Makes the plan. What is wrong is added to the findings.
pub(super) fn plan(
    typed: &Notify,
    credentials: Option<&Path>,
    places: &Places,
    findings: &mut Findings,
) -> Plan {
    let mut making = Making { credentials, places, findings };
    let mut channels: Vec<Channel> = making.short(typed).into_iter().collect();
    let all = typed.channels.clone().unwrap_or_default();
    for (name, typed) in &all {
        let path = ["notify", "channels", name];
        if name == SHORT && !channels.is_empty() {
            making.wrong(
                &path,
                "[notify.webhook] is a channel of this name",
                "another name would be right, or the two in one",
            );
        }
        channels.extend(making.channel(name, typed));
    }
    if channels.len() > CHANNELS_MAX {
        let right = format!("at most {CHANNELS_MAX} would be right");
        making.wrong(&["notify", "channels"], format!("there are {} of them", channels.len()), right);
    }
    let mut known: Vec<&str> = all.keys().map(String::as_str).collect();
    let short = channels.iter().map(|channel| channel.name.as_str()).filter(|name| !all.contains_key(*name));
    known.extend(short);
    let routes = typed.routes.clone().unwrap_or_default();
    let routes = routes.iter().filter_map(|(name, route)| making.route(name, route, &known)).collect();
    let escalation = making.escalation(&typed.escalation.clone().unwrap_or_default(), &known);
    Plan { channels, routes, escalation }
}

/// What makes settings of what was typed, and finds what is wrong with it.
pub(super) struct Making<'a> {
    pub(super) credentials: Option<&'a Path>,
    pub(super) places: &'a Places,
    pub(super) findings: &'a mut Findings,
}

impl Making<'_> {
    /// A problem with a key, unless that has a problem already.
    pub(super) fn wrong(&mut self, path: &[&str], wrong: impl Into<String>, right: impl Into<String>) {
        self.problem(path, None, Wrong::new(wrong, right));
    }

    fn problem(&mut self, path: &[&str], place: Option<String>, what: Wrong) {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        if self.was_removed(&path) {
            return;
        }
        // A key that nobody typed is missing where its section is.
        let above = (1..=path.len()).rev().find_map(|length| self.places.of(&path[..length]));
        let place = place.or_else(|| above.map(ToString::to_string)).unwrap_or_default();
        self.findings.problems.push(Problem::new(place, dotted(&path), what));
    }

    fn was_removed(&self, path: &[String]) -> bool {
        self.findings.removed.iter().any(|removed| path.starts_with(removed))
    }

    /// The value of a secret, given in place or in a file.
    fn secret<T: Parse>(
        &mut self,
        section: &[&str],
        key: &str,
        given: Option<SecretString>,
        file: Option<&SecretFile>,
        of: fn(T) -> SecretString,
    ) -> Option<Secret> {
        let file_key = format!("{key}_file");
        let path: Vec<&str> = section.iter().copied().chain([file_key.as_str()]).collect();
        match (given, file) {
            (Some(_), Some(_)) => {
                let other =
                    dotted(&section.iter().chain([&key]).map(|part| (*part).to_owned()).collect::<Vec<_>>());
                let alone = dotted(&path.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
                self.wrong(&path, format!("{other} is set too"), format!("{alone} alone would be right"));
                None
            }
            (None, Some(file)) => match secret::read::<T>(file, self.credentials) {
                Ok(secret) => Some(Secret(of(secret))),
                Err(what) => {
                    self.problem(&path, None, what);
                    None
                }
            },
            (given, None) => given.map(Secret),
        }
    }

    /// A section lacks a key, unless what stood there was wrong.
    pub(super) fn lacks(&mut self, section: &[&str], key: &str, right: &str) {
        let path: Vec<String> = section.iter().chain([&key]).map(|part| (*part).to_owned()).collect();
        if !self.was_removed(&path) {
            self.wrong(section, format!("says no `{key}`"), right);
        }
    }

    /// The same, where it has to be there.
    pub(super) fn needed<T: Parse>(
        &mut self,
        section: &[&str],
        key: &str,
        given: Option<SecretString>,
        file: Option<&SecretFile>,
        of: fn(T) -> SecretString,
    ) -> Option<Secret> {
        if given.is_none() && file.is_none() {
            let removed = |key: &str| {
                let path: Vec<String> = section.iter().chain([&key]).map(|part| (*part).to_owned()).collect();
                self.was_removed(&path)
            };
            if !removed(key) && !removed(&format!("{key}_file")) {
                self.wrong(
                    section,
                    format!("says no `{key}`"),
                    format!("`{key}_file` would be right, or `{key}`"),
                );
            }
            return None;
        }
        self.secret(section, key, given, file, of)
    }

    /// `[notify.webhook]`, which is a channel of its own.
    fn short(&mut self, typed: &Notify) -> Option<Channel> {
        let webhook = typed.webhook.clone().unwrap_or_default();
        let (given, file) = (webhook.url.map(|url| url.0), webhook.url_file.as_ref());
        let url = self.secret::<SecretUrl>(&["notify", "webhook"], "url", given, file, |url| url.0)?;
        let medium = Medium::Slack(Endpoint { url, token: None, ca: None });
        let timeout = webhook.timeout.map_or(TIMEOUT, |span| span.0);
        Some(Channel { timeout, ..Channel::new(SHORT, medium) })
    }

    /// A channel; none if it is switched off, or wrong.
    fn channel(&mut self, name: &str, typed: &NotifyChannel) -> Option<Channel> {
        let section = ["notify", "channels", name];
        let Some(word) = typed.r#type else {
            if !self.was_removed(&["notify", "channels", name, "type"].map(str::to_owned)) {
                let right = "type = \"slack\", \"pagerduty\", \"email\", \"webhook\" or \"alertmanager\" would be right";
                self.wrong(&section, "says no `type`", right);
            }
            return None;
        };
        for key in ALL_KEYS
            .iter()
            .filter(|key| typed.has(key) && !COMMON.contains(key) && !word.keys().contains(key))
        {
            let mut keys: Vec<&str> = word.keys().to_vec();
            keys.extend(COMMON.iter().skip(1));
            let right = format!("remove it; such a channel has: {}", keys.join(", "));
            let wrong = format!("does not go with type = \"{}\"", word.name());
            self.wrong(&["notify", "channels", name, key], wrong, right);
        }
        if typed.enabled == Some(false) {
            return None;
        }
        let audience = typed.audience.unwrap_or(Audience::Internal);
        if audience == Audience::Users && matches!(word, MediumWord::PagerDuty | MediumWord::Alertmanager) {
            let right = "\"internal\" would be right: users are told in a chat, by mail, or on a status page";
            self.wrong(&["notify", "channels", name, "audience"], "users have no pagers", right);
        }
        let text = self.words(&section, typed, audience);
        let medium = self.medium(&section, word, typed, audience)?;
        Some(Channel {
            name: name.to_owned(),
            audience,
            timeout: typed.timeout.map_or(TIMEOUT, |span| span.0),
            mention: typed.mention.unwrap_or(true),
            text,
            medium,
        })
    }

    fn medium(
        &mut self,
        section: &[&str; 3],
        word: MediumWord,
        typed: &NotifyChannel,
        audience: Audience,
    ) -> Option<Medium> {
        let (url, url_file) = (typed.url.clone().map(|url| url.0), typed.url_file.as_ref());
        let token = typed.token.clone().map(|token| token.0);
        let token =
            self.secret::<BearerToken>(section, "token", token, typed.token_file.as_ref(), |token| token.0);
        let ca = self.ca(section, typed.ca_file.as_ref());
        let endpoint = |url: Secret| Endpoint { url, token: token.clone(), ca: ca.clone() };
        match word {
            MediumWord::Slack => self
                .needed::<SecretUrl>(section, "url", url, url_file, |url| url.0)
                .map(|url| Medium::Slack(endpoint(url))),
            MediumWord::Alertmanager => self
                .needed::<SecretUrl>(section, "url", url, url_file, |url| url.0)
                .map(|url| Medium::Alertmanager(endpoint(url))),
            MediumWord::PagerDuty => {
                let url = self.secret::<SecretUrl>(section, "url", url, url_file, |url| url.0);
                let (key, file) =
                    (typed.routing_key.clone().map(|key| key.0), typed.routing_key_file.as_ref());
                let routing_key =
                    self.needed::<RoutingKey>(section, "routing_key", key, file, |key| key.0)?;
                let endpoint = endpoint(url.unwrap_or_else(|| PAGERDUTY_URL.into()));
                Some(Medium::PagerDuty { endpoint, routing_key })
            }
            MediumWord::Webhook => {
                let url = self.needed::<SecretUrl>(section, "url", url, url_file, |url| url.0);
                let (key, file) = (typed.secret.clone().map(|key| key.0), typed.secret_file.as_ref());
                let key = self.secret::<SigningSecret>(section, "secret", key, file, |key| key.0);
                let shape = self.shape(section, typed, audience)?;
                url.map(|url| Medium::Webhook { endpoint: endpoint(url), key, shape })
            }
            MediumWord::Email => self.mail(section, typed, ca).map(Medium::Email),
        }
    }

    pub(super) fn ca(&mut self, section: &[&str], file: Option<&HostFile>) -> Option<String> {
        let file = file?;
        let path: Vec<&str> = section.iter().copied().chain(["ca_file"]).collect();
        match read_text(Path::new(&file.0), CA_MAX) {
            Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => Some(text),
            Ok(_) => {
                self.wrong(&path, "holds no certificate", "a file in PEM would be right");
                None
            }
            Err(what) => {
                self.problem(&path, None, what);
                None
            }
        }
    }

    fn mail(&mut self, section: &[&str; 3], typed: &NotifyChannel, ca: Option<String>) -> Option<Mail> {
        let password = typed.password.clone().map(|password| password.0);
        let file = typed.password_file.as_ref();
        let password = self.secret::<Password>(section, "password", password, file, |password| password.0);
        for (key, there) in
            [("smtp", typed.smtp.is_some()), ("from", typed.from.is_some()), ("to", typed.to.is_some())]
        {
            if !there && !self.was_removed(&at(section, key).map(str::to_owned)) {
                let right = match key {
                    "smtp" => "smtp = \"smtp.example.com:587\" would be right",
                    "from" => "from = \"Backstop <backstop@example.com>\" would be right",
                    _ => "to = [\"ops@example.com\"] would be right",
                };
                self.wrong(section, format!("says no `{key}`"), right);
            }
        }
        if typed.user.is_some() != (typed.password.is_some() || typed.password_file.is_some()) {
            self.wrong(section, "`user` and password go together", "both would be right, or neither");
        }
        let (host, port) = typed.smtp.as_ref()?.0.rsplit_once(':')?;
        let (host, port) = (host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?);
        // The one port that has always been TLS from its first byte.
        let usual = if port == 465 { MailTls::Implicit } else { MailTls::Starttls };
        let tls = typed.tls.unwrap_or(usual);
        if tls == MailTls::None && typed.user.is_some() {
            let right = "tls = \"starttls\" would be right, or no user";
            self.wrong(&at(section, "tls"), "with \"none\" the password would be sent in the open", right);
        }
        let mut to = Vec::new();
        for address in &typed.to.as_ref()?.0 {
            to.extend(mailbox(address));
        }
        let from = mailbox(&typed.from.as_ref()?.0)?;
        let user = typed.user.as_ref().map(|user| user.0.clone());
        Some(Mail { host, port, tls, credentials: user.zip(password), ca, from, to })
    }

    /// The words, if somebody wrote any.
    fn words(&mut self, section: &[&str; 3], typed: &NotifyChannel, audience: Audience) -> Option<Template> {
        let (key, file, source) = self.template(
            section,
            "text",
            typed.text.as_ref().map(|t| t.0.as_str()),
            typed.text_file.as_ref(),
        )?;
        let template = Template::new(&source, false);
        if let Err((mistake, kind)) = try_words(&template, audience) {
            self.mistake(section, key, file, &mistake, kind);
        }
        Some(template)
    }

    fn shape(&mut self, section: &[&str; 3], typed: &NotifyChannel, audience: Audience) -> Option<Shape> {
        let given = typed.template.as_ref().map(|t| t.0.as_str());
        if given.is_none() && typed.template_file.is_none() {
            return Some(Shape::Plain);
        }
        let (key, file, source) = self.template(section, "template", given, typed.template_file.as_ref())?;
        if file.is_none() && !source.contains(['{', ' ', '\n']) {
            if let Some((_, shape)) = READY.iter().find(|(name, _)| *name == source) {
                return Some(shape.clone());
            }
            let names = || READY.iter().map(|(name, _)| *name);
            let near = nearest(&source, names()).map(|near| format!("did you mean \"{near}\"?"));
            let all = format!(
                "one of these would be right: {}; or a template with {{{{ text }}}} in it",
                names().collect::<Vec<_>>().join(", ")
            );
            self.wrong(
                &at(section, key),
                format!("{source:?} is not a template that is ready"),
                near.unwrap_or(all),
            );
            return None;
        }
        let json = file.as_ref().map_or_else(
            || {
                source.trim_start().starts_with(['{', '['])
                    && !source.trim_start().starts_with("{{")
                    && !source.trim_start().starts_with("{%")
            },
            |file| file.ends_with(".json"),
        );
        let template = Template::new(&source, json);
        if let Err((mistake, kind)) = try_body(&template, audience) {
            self.mistake(section, key, file, &mistake, kind);
        }
        Some(Shape::Own(template))
    }

    /// The source of a template: its key, its file if it has one, and the text.
    fn template(
        &mut self,
        section: &[&str; 3],
        key: &'static str,
        given: Option<&str>,
        file: Option<&HostFile>,
    ) -> Option<(&'static str, Option<String>, String)> {
        let file_key = if key == "text" { "text_file" } else { "template_file" };
        match (given, file) {
            (Some(_), Some(_)) => {
                let right = format!("`{key}` or `{file_key}` would be right, not both");
                self.wrong(&at(section, file_key), format!("`{key}` is set too"), right);
                None
            }
            (Some(text), None) => Some((key, None, text.to_owned())),
            (None, Some(file)) => match read_text(Path::new(&file.0), TEMPLATE_MAX as u64) {
                Ok(text) => Some((file_key, Some(file.0.clone()), text)),
                Err(what) => {
                    let what = Wrong::new(format!("the file {} {}", file.0, what.wrong), what.right);
                    self.problem(&at(section, file_key), None, what);
                    None
                }
            },
            (None, None) => None,
        }
    }

    /// A mistake in a template, at its line and column: of its file, or of the text in the setting.
    fn mistake(
        &mut self,
        section: &[&str; 3],
        key: &str,
        file: Option<String>,
        mistake: &Mistake,
        kind: &str,
    ) {
        const RIGHT: &str = "`backstop notify test --show` shows what there is to speak of";
        let with = format!("(with an announcement of the kind {kind})");
        let (place, wrong) = match (file, mistake.place) {
            (Some(file), Some((line, column))) => (
                Some(format!("{file}:{line}:{column}")),
                format!("the template is wrong: {} {with}", mistake.what),
            ),
            (Some(file), None) => (Some(file), format!("the template is wrong: {} {with}", mistake.what)),
            (None, _) => (None, format!("the template is wrong at {mistake} {with}")),
        };
        self.problem(&at(section, key), place, Wrong::new(wrong, RIGHT));
    }

    fn route(&mut self, name: &str, typed: &NotifyRoute, known: &[&str]) -> Option<Route> {
        let section = ["notify", "routes", name];
        let channels = self.channels(&section, typed.channels.as_ref(), known)?;
        let words = |list: &Option<Listed<super::announce::KindWord>>| {
            list.iter().flat_map(|list| &list.0).filter_map(|word| kind(word)).collect()
        };
        Some(Route {
            services: typed.services.as_ref().map(|list| list.0.clone()).unwrap_or_default(),
            severity: typed.severity,
            kinds: words(&typed.kinds),
            channels,
        })
    }

    /// Names of channels that there are.
    fn channels(
        &mut self,
        section: &[&str],
        typed: Option<&Listed<super::announce::ChannelWord>>,
        known: &[&str],
    ) -> Option<Vec<String>> {
        let path: Vec<&str> = section.iter().copied().chain(["channels"]).collect();
        let Some(names) = typed else {
            let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
            if !self.was_removed(&path) {
                self.wrong(section, "names no channel", "channels = [\"NAME\"] would be right");
            }
            return None;
        };
        for name in names.0.iter().filter(|name| !known.contains(&name.as_str())) {
            // One that is wrong itself has been spoken of.
            if self.was_removed(&["notify", "channels", name].map(str::to_owned)) {
                continue;
            }
            let right = nearest(name, known.iter().copied()).map_or_else(
                || match known {
                    [] => format!("[notify.channels.{name}] would be right"),
                    known => format!("there are: {}", known.join(", ")),
                },
                |near| format!("did you mean \"{near}\"?"),
            );
            self.wrong(&path, format!("no channel is called {name}"), right);
        }
        Some(names.0.clone())
    }

    fn escalation(&mut self, typed: &NotifyEscalation, known: &[&str]) -> Escalation {
        let section = ["notify", "escalation"];
        let mut levels = Vec::new();
        if typed.after.is_some() || typed.channels.is_some() {
            levels.extend(self.level(
                &section,
                FIRST_LEVEL,
                typed.after.map(|span| span.0),
                typed.channels.as_ref(),
                known,
            ));
        }
        for (name, level) in typed.levels.iter().flatten() {
            let section = ["notify", "escalation", "levels", name];
            levels.extend(self.level(
                &section,
                name,
                level.after.map(|span| span.0),
                level.channels.as_ref(),
                known,
            ));
        }
        levels.sort_by_key(|level| level.after);
        let named =
            typed.kinds.iter().flat_map(|list| &list.0).filter_map(|word| kind(word)).collect::<Vec<_>>();
        Escalation { kinds: if named.is_empty() { ASKS.to_vec() } else { named }, levels }
    }

    fn level(
        &mut self,
        section: &[&str],
        name: &str,
        after: Option<Duration>,
        channels: Option<&Listed<super::announce::ChannelWord>>,
        known: &[&str],
    ) -> Option<Level> {
        let channels = self.channels(section, channels, known);
        let path: Vec<String> = section.iter().copied().chain(["after"]).map(str::to_owned).collect();
        if after.is_none() && !self.was_removed(&path) {
            self.wrong(section, "says no `after`", "after = \"15m\" would be right");
        }
        Some(Level { name: name.to_owned(), after: after?, channels: channels? })
    }
}

/// A key of a section.
const fn at<'a>(section: &[&'a str; 3], key: &'a str) -> [&'a str; 4] {
    [section[0], section[1], section[2], key]
}

/// Every key of a channel.
const ALL_KEYS: &[&str] = &[
    "mention",
    "url",
    "url_file",
    "token",
    "token_file",
    "routing_key",
    "routing_key_file",
    "secret",
    "secret_file",
    "template",
    "template_file",
    "smtp",
    "tls",
    "user",
    "password",
    "password_file",
    "from",
    "to",
];
