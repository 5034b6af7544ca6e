//! `node`, and the `metadata` of listeners, routes and clusters: free-form facts that plugins can read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::config::section::{Context, Definitions, Read, section};
use crate::config::yaml::{Node as Tree, Value};

/// Facts by the name of who they are for, as Envoy's `filter_metadata`.
pub type Metadata = BTreeMap<String, Struct>;

/// What plugins and logs know of a cluster.
#[derive(Debug, Default)]
pub struct ClusterFacts {
    /// Its name.
    pub name: Arc<str>,
    /// Its metadata.
    pub metadata: Metadata,
}

section! {
    /// Who this Weir is. Plugins read it as the property `node`.
    pub struct Node {
        /// Its name in the mesh, as `sidecar~10.0.0.1~api-1`.
        id: String = "",
        /// The group that it belongs to.
        cluster: String = "",
        /// Anything else.
        metadata: Struct,
        /// Where it is.
        locality: Locality = "",
    }
}

section! {
    /// A place.
    pub struct Locality {
        /// The region.
        region: String = "",
        /// The zone in the region.
        zone: String = "",
        /// The part of the zone.
        sub_zone: String = "",
    }
}

/// A mapping with anything in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Struct(pub Map<String, Json>);

impl Read for Struct {
    fn read(node: &Tree, cx: &mut Context<'_>) -> Option<Self> {
        match (&node.value, node.to_json()) {
            (Value::Mapping(_), Json::Object(fields)) => Some(Self(fields)),
            _ => {
                cx.problem(node.at, format!("a mapping is expected here, not {}", node.kind()));
                None
            }
        }
    }

    fn schema(_: &mut Definitions) -> Json {
        serde_json::json!({ "type": "object" })
    }

    fn to_json(&self) -> Json {
        Json::Object(self.0.clone()).to_json()
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

// Beside the `PartialEq` that a section has: filters that are told different things are different filters.
impl Eq for Node {}
impl Eq for Locality {}

impl std::hash::Hash for Node {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.id, &self.cluster, &self.metadata).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    #[test]
    fn metadata_that_is_no_mapping_of_mappings_is_told_with_its_place() {
        let text = "node: { id: a, metadata: [] }\n\
                    clusters: [ { name: c, endpoints: [], metadata: { ns: 1 } } ]";
        let problems = Config::parse(Path::new("t.yaml"), text).expect_err("it is wrong").to_string();
        for told in ["t.yaml:1:26: node.metadata: ", "t.yaml:2:55: clusters[0].metadata.ns: "] {
            assert!(problems.contains(told), "{problems}");
        }
    }

    #[test]
    fn a_node_need_not_say_anything() {
        let config = Config::parse(Path::new("t.yaml"), "node: { cluster: edge }").expect("it is right");
        assert_eq!((&*config.sections.node.id, &*config.sections.node.cluster), ("", "edge"));
    }
}
