//! The details of one model.
//!
//! Contract: docs/contract/catalogue.md#6.4

use std::time::SystemTime;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::entry::{Entry, LOADED, Place};
use super::merged::Alias;
use super::render::Selection;
use super::{Catalogue, CatalogueError};
use crate::endpoint_set::EndpointSet;
use crate::format::{ago, bytes};

#[derive(Serialize)]
struct Detail<'a> {
    id: &'a str,
    family: &'a str,
    variant: &'a str,
    parameter_size: &'a str,
    parameter_count: u64,
    quantization: &'a str,
    format: &'a str,
    total_disk_size: String,
    last_seen: String,
    aliases: Vec<&'a str>,
    endpoints: Vec<&'a str>,
    loaded_endpoints: Vec<&'a str>,
    capabilities: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_context_length: Option<u64>,
}

/// Inputs of a model's page that change while the models stay the same.
#[derive(Clone, Copy)]
pub struct DetailTimes<'t> {
    /// The current time.
    pub now: SystemTime,
    /// When an endpoint, named by its index, was last listed with success.
    pub synced_at: &'t dyn Fn(usize) -> Option<SystemTime>,
}

impl std::fmt::Debug for DetailTimes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Times")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// The names and places under which a detail shows an entry: its own, or those of an alias.
struct Named<'c, 'p> {
    id: &'c str,
    aliases: Vec<&'c str>,
    /// The places of each endpoint.
    by_endpoint: Vec<&'p [Place]>,
}

impl Catalogue {
    /// `GET /olla/models/{id}`. The id is the whole rest of the path as it was sent: an id, a name
    /// or an alias, in any letter case, percent-encoded or not.
    ///
    /// # Errors
    /// No id, or no model of that id (docs/contract/catalogue.md#6.7).
    pub fn model(
        &self,
        id_as_in_path: &str,
        times: &DetailTimes<'_>,
    ) -> Result<Bytes, CatalogueError> {
        let id = percent_decode_str(id_as_in_path).decode_utf8_lossy();
        let without_slash = id.strip_suffix('/');
        if without_slash.unwrap_or(&id).is_empty() {
            let message = "the path names no model: /olla/models/<id>".to_owned();
            return Err(CatalogueError::bad_request("MODEL_ID_REQUIRED", message));
        }
        let plain = without_slash.unwrap_or(&id);
        let body = [&*id, plain]
            .into_iter()
            .find_map(|id| self.detail(id, times))
            .or_else(|| self.covered_detail(plain, times))
            .ok_or_else(|| CatalogueError::not_found(&id))?;
        // Serialising a detail cannot fail.
        serde_json::to_vec(&body)
            .map(Bytes::from)
            .map_err(|_| CatalogueError::not_found(&id))
    }

    fn detail<'c>(&'c self, id: &str, times: &DetailTimes<'_>) -> Option<Detail<'c>> {
        let by_id = || {
            self.merged
                .entries
                .get(*self.merged.ids.get(&id.to_lowercase())? as usize)
        };
        if let Some(entry) = self.merged.named_entry(id).or_else(by_id) {
            return Some(self.entry_detail(entry, times));
        }
        let alias = self.alias_named(id)?;
        self.alias_detail(alias, &alias.name, times)
    }

    /// The details of a model by a name that only stands for it.
    fn covered_detail<'c>(&'c self, id: &'c str, times: &DetailTimes<'_>) -> Option<Detail<'c>> {
        let all = EndpointSet::first(self.merged.endpoints.len());
        if let Some((entry, _)) = self.merged.entry_by_name(id, &all) {
            return Some(self.entry_detail(entry, times));
        }
        let alias = self.alias_covering(id)?;
        self.alias_detail(alias, id, times)
    }

    fn entry_detail<'c>(&'c self, entry: &'c Entry, times: &DetailTimes<'_>) -> Detail<'c> {
        let named = Named {
            id: &entry.id,
            aliases: entry.names().collect(),
            by_endpoint: entry.by_endpoint().collect(),
        };
        self.detail_of(entry, named, times)
    }

    fn alias_detail<'c>(
        &'c self,
        alias: &'c Alias,
        id: &'c str,
        times: &DetailTimes<'_>,
    ) -> Option<Detail<'c>> {
        let among = |eligible: EndpointSet| {
            let filter = |_: &Entry| true;
            let own = EndpointSet::EMPTY;
            self.alias_view(
                alias,
                id,
                &Selection {
                    filter: &filter,
                    eligible,
                    own,
                },
            )
        };
        // An alias is shown even if all of its targets are down, as a model is.
        let all = EndpointSet::first(self.merged.endpoints.len());
        let view = among(self.routable).or_else(|| among(all))?;
        let named = Named {
            id,
            aliases: view.targets,
            by_endpoint: view.places.chunks(1).collect(),
        };
        Some(self.detail_of(view.entry, named, times))
    }

    fn detail_of<'c>(
        &'c self,
        entry: &'c Entry,
        named: Named<'c, '_>,
        times: &DetailTimes<'_>,
    ) -> Detail<'c> {
        let Named {
            id,
            aliases,
            by_endpoint,
        } = named;
        let firsts = || {
            by_endpoint
                .iter()
                .filter_map(|places| Some((*places, places.first()?)))
        };
        let size = |places: &[Place]| self.merged.first_fact(places, |model| model.disk_size);
        let sizes = by_endpoint.iter().filter_map(|places| size(places));
        let seen = firsts().filter_map(|(_, first)| (times.synced_at)(first.endpoint as usize));
        let loaded = firsts().filter(|(places, _)| self.state_at(places) == LOADED);
        let (family, variant) = self.shown_family(entry);
        Detail {
            id,
            family,
            variant,
            parameter_size: &entry.parameter_size,
            parameter_count: entry.parameter_count,
            quantization: &entry.quantization,
            format: &entry.format,
            total_disk_size: bytes(sizes.fold(0, u64::saturating_add)),
            last_seen: ago(seen.max(), times.now),
            aliases,
            endpoints: firsts()
                .map(|(_, first)| self.merged.endpoint_name(first))
                .collect(),
            loaded_endpoints: loaded
                .map(|(_, first)| self.merged.endpoint_name(first))
                .collect(),
            capabilities: self.merged.rules.words(entry.capabilities).collect(),
            max_context_length: entry.context_length,
        }
    }
}
