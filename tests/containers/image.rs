//! What is in the image, what is not, what it says of itself, and what it can do without any right.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;

use crate::harness::*;

/// Runs a shell script in a container of the image as this user; gives back the lines of its stdout.
fn lines(major: u32, user: &str, script: &str) -> Vec<String> {
    let output = run(major, &["--user", user, "--network", "none", "--entrypoint", "bash"], &["-euc", script]);
    assert!(output.status.success(), "{script}: {}", stderr(&output));
    stdout(&output).lines().map(str::to_string).collect()
}

fn inspect(image: &str, format: &str) -> Value {
    serde_json::from_str(&docker_ok(&["image", "inspect", "--format", &format!("{{{{json {format}}}}}"), image]))
        .unwrap()
}

#[test]
fn no_file_gives_the_rights_of_its_owner() {
    for major in majors() {
        assert_eq!(lines(major, "0", "find / -xdev -type f -perm /6000"), [""; 0]);
    }
}

#[test]
fn nothing_is_left_of_how_the_image_was_made() {
    let nothing = [
        "find /var/lib/apt/lists /var/cache/apt/archives -type f ! -name lock",
        "find /tmp /var/tmp /home /var/log -mindepth 1 ! -type d",
        "find /root -type f ! -name .bashrc ! -name .profile",
        "find /var/cache/debconf /var/lib/dpkg -name '*-old'",
        "find /etc -maxdepth 1 -name '*-' -o -maxdepth 1 -name '*.dpkg-*' -o -maxdepth 1 -name machine-id -size +0",
        "find /etc/ssl -xtype l",
        // Where the sources were.
        "grep -aoE '/[^ ]+/registry/src/' /usr/local/bin/podgres || true",
        "grep -rlI --exclude-dir=proc --exclude-dir=sys -e '-----BEGIN .*PRIVATE KEY' / || true",
        // The day of the build. Docker itself makes the first three.
        "find /etc /root /usr /var -xdev -type f ! -name hosts ! -name hostname ! -name resolv.conf \
            -newermt \"$(stat -c @%Y /var/lib/dpkg/status)\"",
    ];
    for major in majors() {
        let left = nothing.map(|script| (script, lines(major, "0", script)));
        let left: Vec<_> = left.iter().filter(|(_, lines)| !lines.is_empty()).collect();
        assert!(left.is_empty(), "{left:#?}");
    }
}

/// What 999, or anybody whom Kubernetes makes of it, can write to: a file below these is not the image's.
#[test]
fn it_is_not_root_and_can_change_nothing_that_the_image_brought() {
    for major in majors() {
        assert_eq!(inspect(&image(major), ".Config.User"), "999:999");
        for user in ["999:999", "12345:0", "12345:6789"] {
            let writable = lines(major, user, "find / -xdev -writable ! -type l | sort");
            let known = ["/run/lock", "/run/podgres", "/run/postgresql", "/tmp", "/var/lib/postgresql", "/var/tmp"];
            assert_eq!(writable, known, "{user}");
        }
    }
}

/// The options of `docker run` that are what the manifest asks the kubelet for.
struct Pod {
    options: Vec<String>,
    data: Volume,
}

impl Pod {
    /// For this `uid:gid`; the volumes belong to the gid, as with `fsGroup`.
    fn new(user: &str, spec: &Value) -> Self {
        let gid = user.split(':').next_back().unwrap();
        let data = Volume::new();
        data.shell(&format!("chown 0:{gid} /volume; chmod 2775 /volume"));
        let container = &spec["containers"][0];
        let context = &container["securityContext"];
        assert_eq!(
            (&context["readOnlyRootFilesystem"], &context["allowPrivilegeEscalation"]),
            (&true.into(), &false.into())
        );
        let mut options: Vec<_> =
            ["--read-only", "--security-opt", "no-new-privileges", "--user", user].map(str::to_string).into();
        for capability in context["capabilities"]["drop"].as_array().unwrap() {
            options.push(format!("--cap-drop={}", capability.as_str().unwrap()));
        }
        for mount in container["volumeMounts"].as_array().unwrap() {
            let path = mount["mountPath"].as_str().unwrap();
            let volume = spec["volumes"].as_array().unwrap().iter().find(|v| v["name"] == mount["name"]);
            match volume {
                Some(volume) if volume["emptyDir"].is_object() => {
                    options.push(format!("--tmpfs={path}:mode=2777,gid={gid}"));
                }
                // Nothing that it writes to: settings, and the token for an API server, which this one does without.
                Some(volume) => assert!(volume["configMap"].is_object() || volume["projected"].is_object(), "{volume}"),
                None => options.push(format!("--volume={}", data.at(path))),
            }
        }
        Self { options, data }
    }

    fn start(&self, major: u32) -> Container {
        let options: Vec<_> = self.options.iter().map(String::as_str).collect();
        Container::postgres(major, &options, &[]).ready()
    }
}

/// The pod that `podgres manifest` describes.
fn pod(major: u32) -> Value {
    let printed = run(major, &[], &["podgres", "manifest"]);
    let objects: Vec<Value> = serde_saphyr::from_multiple(&stdout(&printed)).unwrap();
    objects.into_iter().find(|o| o["kind"] == "StatefulSet").unwrap()["spec"]["template"]["spec"].take()
}

#[test]
fn the_manifests_pod_has_all_that_postgresql_needs_whoever_it_runs_as() {
    for major in majors() {
        let spec = pod(major);
        let context = &spec["securityContext"];
        let own = format!("{}:{}", context["runAsUser"], context["fsGroup"]);
        for user in [own.as_str(), "12345:6789"] {
            let pod = Pod::new(user, &spec);
            let container = pod.start(major);
            container.sql("create table kept as select 6 * 7 as x");
            for process in ["1", "$(head -n 1 \"$PGDATA/postmaster.pid\")"] {
                let rights = "^(Uid|Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):";
                let status = container.shell(&format!("grep -E '{rights}' /proc/{process}/status | tr -s '\\t ' ' '"));
                let uid = user.split(':').next().unwrap();
                let none = "0".repeat(16);
                let expected = format!(
                    "Uid: {uid} {uid} {uid} {uid}\nCapPrm: {none}\nCapEff: {none}\nCapBnd: {none}\nCapAmb: {none}\nNoNewPrivs: 1\nSeccomp: 2"
                );
                assert_eq!(status, expected, "{process}");
            }
            container.signal("TERM");
            assert_eq!(container.wait(), 0, "{}", container.log());
            drop(container);
            assert_eq!(pod.start(major).sql("select x from kept"), "42");
        }
    }
}

#[test]
fn the_labels_say_what_it_is_and_what_it_was_made_of() {
    for major in majors() {
        let labels = inspect(&image(major), ".Config.Labels");
        let label = |name: &str| labels[format!("org.opencontainers.image.{name}")].as_str().unwrap_or("").to_string();
        assert_eq!(label("title"), "podgres");
        assert!(label("description").contains(&format!("PostgreSQL {major}")), "{labels}");
        assert_eq!(label("licenses"), "Apache-2.0 AND PostgreSQL");
        assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
        let revision = label("revision");
        assert!(revision.len() >= 40 && revision[..40].chars().all(|c| c.is_ascii_hexdigit()), "{labels}");
        assert!(humantime::parse_rfc3339(&label("created")).is_ok(), "{labels}");
        assert!(label("base.name").starts_with("debian:") && label("base.name").ends_with("-slim"), "{labels}");
        // It is by its digest that the base is found, and it is this one that the image begins with.
        let (name, digest) = (label("base.name"), label("base.digest"));
        let pulled = format!("{name}@{digest}");
        let base = if docker(&["image", "inspect", &pulled]).status.success() { pulled } else { digest };
        let layers = inspect(&image(major), ".RootFS.Layers");
        let below = inspect(&base, ".RootFS.Layers");
        assert!(layers.as_array().unwrap().starts_with(below.as_array().unwrap()), "{layers} {below}");
    }
}

/// Each component of the image's list as `NAME VERSION`, of those whose address begins like this.
fn components(sbom: &Value, kind: &str) -> BTreeSet<String> {
    let of_kind = |c: &&Value| c["purl"].as_str().unwrap().starts_with(kind);
    let named = |c: &Value| format!("{} {}", c["name"].as_str().unwrap(), c["version"].as_str().unwrap());
    sbom["components"].as_array().unwrap().iter().filter(of_kind).map(named).collect()
}

fn sbom(major: u32) -> Value {
    serde_json::from_str(&lines(major, "999", "cat /usr/share/doc/podgres/sbom.cdx.json").join("\n")).unwrap()
}

#[test]
fn the_list_of_components_has_every_package_of_debian() {
    for major in majors() {
        let installed = lines(major, "999", "dpkg-query --show --showformat '${Package} ${Version}\\n'");
        assert!(installed.iter().any(|p| p.starts_with(&format!("postgresql-{major} "))));
        assert_eq!(components(&sbom(major), "pkg:deb/debian/"), installed.into_iter().collect());
    }
}

#[test]
fn the_list_of_components_has_every_crate_that_is_linked() {
    let sbom = sbom(17);
    let crates = components(&sbom, "pkg:cargo/");
    // Where code can panic, the binary has the path of it.
    let script = "grep -aoE '/registry/(src/[^/]+/)?[^/ ]+/src/' /usr/local/bin/podgres | sed -E 's|/src/$||; s|.*/||' | sort -u";
    let linked = lines(17, "999", script);
    assert!(linked.len() > 20, "{linked:?}");
    let unlisted: Vec<_> = linked.iter().filter(|name| !crates.iter().any(|c| c.replace(' ', "-") == **name)).collect();
    assert!(unlisted.is_empty(), "{unlisted:?}");
    let lock: toml::Table = include_str!("../../Cargo.lock").parse().unwrap();
    let lock = lock["package"].as_array().unwrap();
    for component in
        sbom["components"].as_array().unwrap().iter().filter(|c| c["purl"].as_str().unwrap().contains("cargo"))
    {
        let is = |p: &&toml::Value| {
            p["name"].as_str() == component["name"].as_str() && p["version"].as_str() == component["version"].as_str()
        };
        let locked = lock.iter().find(is).unwrap_or_else(|| panic!("{component} is not in Cargo.lock"));
        if let Some(checksum) = locked.get("checksum") {
            assert_eq!(component["hashes"][0]["content"].as_str(), checksum.as_str());
        }
    }
    let package: toml::Table = include_str!("../../Cargo.toml").parse().unwrap();
    let has = |name: &String| crates.iter().any(|c| c.starts_with(&format!("{name} ")));
    for name in package["dependencies"].as_table().unwrap().keys() {
        assert!(has(name), "{name}");
    }
    for name in ["proptest", "stateright", "thiserror-impl"] {
        assert!(!has(&name.to_string()), "{name} is not linked");
    }
    let binary = lines(17, "999", "sha256sum </usr/local/bin/podgres").remove(0);
    let own = sbom["components"].as_array().unwrap().iter().find(|c| c["name"] == "podgres").unwrap();
    assert_eq!(own["hashes"][0]["content"], binary.trim_end_matches(" -").trim_end());
}

/// `images/build` with this binary; the image's id and layers. The image, and with it what the cache knows of it, is gone then.
#[allow(clippy::disallowed_methods, reason = "not PID 1")]
fn build(binary: &Path) -> (Value, Value) {
    let (name, cache) = (unique("image"), tempfile::tempdir().unwrap());
    let output = Command::new("timeout")
        .args(["--kill-after=5", "900", concat!(env!("CARGO_MANIFEST_DIR"), "/images/build"), "--name", &name, "15"])
        .env("PODGRES_BINARY", binary)
        .env("XDG_CACHE_HOME", cache.path())
        .output()
        .expect("images/build can be executed");
    let image = format!("{name}:15");
    let found = output.status.success().then(|| (inspect(&image, ".Id"), inspect(&image, ".RootFS.Layers")));
    docker(&["rmi", "--force", &image, &format!("{name}:latest")]);
    found.unwrap_or_else(|| panic!("{}{}", stdout(&output), stderr(&output)))
}

#[test]
fn the_same_binary_is_the_same_layer_and_another_changes_no_other() {
    // No other build has it in its cache.
    let text = |what: &str| format!("#!/bin/sh\necho {what} {}\n", unique("binary"));
    let (one, other) = (text("one"), text("other"));
    let files = Files::new(&[("first", 0o755, &one), ("second", 0o700, &one), ("third", 0o755, &other)]);
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    std::fs::File::options().append(true).open(files.path().join("second")).unwrap().set_modified(long_ago).unwrap();
    let [first, second, third] = ["first", "second", "third"].map(|name| build(&files.path().join(name)));
    assert_ne!(first.0, second.0, "the second was built, not found");
    assert_eq!(first.1, second.1, "every layer, with the list of components too");
    let layers = first.1.as_array().unwrap();
    let same: Vec<_> = layers.iter().zip(third.1.as_array().unwrap()).map(|(a, b)| a == b).collect();
    assert_eq!(same[same.len() - 2..], [false, false], "the binary's, and that of the list that has its checksum");
    assert!(same[..same.len() - 2].iter().all(|same| *same), "Debian's are found in the cache");
}
