# Keys and certificates of the test cluster, made once for each address of the API server, and kubeconfig files.

# certificate DIRECTORY NAME SUBJECT EXTENSION…
certificate() {
    local file=$1/$2 ca=$1/ca subject=$3
    shift 3
    openssl ecparam -name prime256v1 -genkey -noout -out "$file.key"
    openssl req -new -key "$file.key" -subj "$subject" |
        openssl x509 -req -CA "$ca.crt" -CAkey "$ca.key" -CAcreateserial -days 3650 -out "$file.crt" -extfile <(printf '%s\n' "$@")
}

# make_pki DIRECTORY ADDRESS SERVICE-ADDRESS NODE: the subjects are what RBAC and the Node authorizer know the
# components by (https://kubernetes.io/docs/setup/best-practices/certificates/).
make_pki() (
    umask 077
    directory=$1.part client=extendedKeyUsage=clientAuth
    rm -rf "$directory"
    mkdir -p "$directory"
    openssl ecparam -name prime256v1 -genkey -noout -out "$directory/ca.key"
    openssl req -x509 -new -key "$directory/ca.key" -subj /CN=podgres-test-ca -days 3650 -out "$directory/ca.crt" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature
    openssl genrsa -out "$directory/sa.key" 2048
    openssl rsa -in "$directory/sa.key" -pubout -out "$directory/sa.pub"
    certificate "$directory" apiserver /CN=kube-apiserver extendedKeyUsage=serverAuth \
        "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:$2,IP:$3"
    certificate "$directory" apiserver-kubelet /O=system:masters/CN=apiserver-kubelet $client
    certificate "$directory" admin /O=system:masters/CN=admin $client
    certificate "$directory" kube-controller-manager /CN=system:kube-controller-manager $client
    certificate "$directory" kube-scheduler /CN=system:kube-scheduler $client
    certificate "$directory" kube-proxy /CN=system:kube-proxy $client
    certificate "$directory" kubelet "/O=system:nodes/CN=system:node:$4" "$client,serverAuth" "subjectAltName=DNS:$4,IP:$2"
    mv "$directory" "$1"
)

# make_kubeconfig FILE SERVER PKI USER: with the keys inside, so that the file can go anywhere, also into a container.
make_kubeconfig() (
    umask 077
    cat >"$1.part" <<YAML
apiVersion: v1
kind: Config
current-context: podgres-test
contexts: [{name: podgres-test, context: {cluster: podgres-test, user: $4}}]
clusters: [{name: podgres-test, cluster: {server: "$2", certificate-authority-data: $(base64 -w 0 "$3/ca.crt")}}]
users: [{name: $4, user: {client-certificate-data: $(base64 -w 0 "$3/$4.crt"), client-key-data: $(base64 -w 0 "$3/$4.key")}}]
YAML
    mv "$1.part" "$1"
)
