//! The page.

use maud::{Markup, html};

use super::{Counted, Master, Tree};
use crate::console::layout::{Place, page};
use crate::console::parts::{Notice, empty, id, moment, moment_or, notice, number, pill};
use crate::oauth::signing_keys::KeyInfo;
use crate::vault::{DataKeyGroup, KeyOutage};

/// Returns the page.
#[must_use]
pub fn show(place: &Place<'_>, tree: &Tree, outages: &[KeyOutage]) -> Markup {
    page(
        place,
        &html! {
            @for outage in outages {
                (notice(Notice::Danger, "A master key cannot be used", &html! {
                    p { (id(&outage.key)) " for " (outage.lasts.as_secs()) " s: " (outage.cause) }
                }))
            }
            p.soft { "Keys are made and moved at the command line, where the master keys are: strongroom keys. This page shows what hangs on which." }
            section aria-labelledby="masters" {
                h2 id="masters" { "Master keys" }
                (counted(tree.counted.as_ref()))
                ul.tree { @for master in &tree.masters { (branch(master, tree.counted.as_ref())) } }
            }
            section aria-labelledby="signing" {
                h2 id="signing" { "Keys that sign access tokens, checkpoints and receipts" }
                (signing(&tree.signing))
            }
        },
    )
}

fn counted(counted: Option<&Counted>) -> Markup {
    html! {
        @match counted {
            None => p.soft role="status" { "The data keys are being counted; reload the page in a moment." },
            Some(Counted { groups: None, .. }) => p.soft {
                "There are too many sealed values to count them while a page waits: " code { "strongroom keys status" } " counts them, and says which key is due for rotation."
            },
            Some(Counted { at, .. }) => p.soft { "Counted at " (moment(*at)) "." },
        }
    }
}

fn branch(master: &Master, counted: Option<&Counted>) -> Markup {
    let groups = counted.and_then(|counted| counted.groups.as_deref()).unwrap_or_default();
    let own: Vec<_> = groups.iter().filter(|group| group.master_key == master.key.id).collect();
    let wraps: i64 = own.iter().map(|group| group.count).sum();
    let words = match master.state {
        "wraps" => "wraps new data keys",
        "opens" => "opens what it wrapped",
        _ => "not given to this process",
    };
    html! {
        li {
            (id(&master.key.id)) " " span.soft { (master.kind.unwrap_or("elsewhere")) } " · " (words) " · since " (moment(master.key.created_at))
            ul { @for group in own { (data_keys(group)) } }
            @if groups.iter().any(|_| true) && wraps == 0 { p.soft { "It wraps nothing and can be retired." } }
        }
    }
}

fn data_keys(group: &DataKeyGroup) -> Markup {
    html! {
        li {
            (group.purpose) ": " (number(group.count)) " data keys, made " (moment(group.oldest)) " to " (moment(group.newest))
            "; " (number(group.seals)) " seals, at most " (number(group.most_seals)) " under one"
            @if group.rotating > 0 {
                p {
                    (number(group.rotating)) " of them rotate, since " (moment_or(group.rotating_since, "now")) "; "
                    (number(group.former_seals)) " seals are under their former keys. "
                    code { "strongroom keys rotate-data" } " goes on."
                }
            }
        }
    }
}

fn signing(keys: &[KeyInfo]) -> Markup {
    html! {
        @if keys.is_empty() { (empty("None.")) } @else {
            div.scroll tabindex="0" role="group" aria-label="Signing keys" {
                table {
                    thead { tr { th { "Key" } th { "Algorithm" } th { "State" } th { "Made" } th { "Signs from" } th { "Retires" } } }
                    tbody {
                        @for key in keys {
                            tr {
                                td { (id(&key.kid)) }
                                td { (key.algorithm) }
                                td { (pill(&key.state)) }
                                td { (moment(key.created_at)) }
                                td { (moment(key.signs_from)) }
                                td { (moment_or(key.retired_at, "not planned")) }
                            }
                        }
                    }
                }
            }
        }
    }
}
