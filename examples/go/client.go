// Package callers adds participants to live contacts by way of the gateway.
package callers

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "example.com/callers/gen/participantgateway/v1"
)

//go:generate buf generate

// Options say where the gateway is and who calls it.
type Options struct {
	// Target is a gRPC name, such as dns:///gateway-headless.participants:50051.
	Target string
	// ServiceConfig is the JSON of the shared file: balancing, default timeout and retries.
	ServiceConfig string
	// Tenant is sent as the header x-tenant-id. Only where something in front checks it.
	Tenant string
	// TokenFile holds a bearer token. It is read anew for each call, since it is rotated.
	TokenFile string
	// CAFile holds the CAs of the gateway's certificate, in PEM. It switches TLS on.
	CAFile string
	// CertFile and KeyFile hold a client certificate and its key, in PEM.
	CertFile, KeyFile string
}

// Dial opens a channel. One channel serves a whole process: share it.
func Dial(options Options) (*grpc.ClientConn, error) {
	transport, err := transport(options)
	if err != nil {
		return nil, err
	}
	settings := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(options.ServiceConfig),
	}
	switch {
	case options.TokenFile != "":
		secure := options.CAFile != ""
		settings = append(settings, grpc.WithPerRPCCredentials(bearer{options.TokenFile, secure}))
	case options.Tenant != "":
		settings = append(settings, grpc.WithUnaryInterceptor(asTenant(options.Tenant)))
	}
	return grpc.NewClient(options.Target, settings...)
}

// Participant is what the caller gets, with the metadata of the answer.
type Participant struct {
	*pb.CreateParticipantResponse
	// Header holds x-request-id and ratelimit-*. An error has them in Trailer instead.
	Header, Trailer metadata.MD
}

// NewClientToken makes the idempotency key of a new call: 128 random bits.
func NewClientToken() string { return rand.Text() }

// Create makes one call within the timeout. The request must have a client_token, so that the
// library's retries, and the caller's own, are safe.
func Create(
	ctx context.Context,
	channel grpc.ClientConnInterface,
	request *pb.CreateParticipantRequest,
	timeout time.Duration,
	options ...grpc.CallOption,
) (Participant, error) {
	if request.GetClientToken() == "" {
		return Participant{}, errors.New("the request has no client_token")
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var answer Participant
	options = append(options, grpc.Header(&answer.Header), grpc.Trailer(&answer.Trailer))
	var err error
	client := pb.NewParticipantServiceClient(channel)
	answer.CreateParticipantResponse, err = client.CreateParticipant(ctx, request, options...)
	return answer, err
}

func transport(options Options) (credentials.TransportCredentials, error) {
	if options.CAFile == "" {
		return insecure.NewCredentials(), nil
	}
	authorities, err := os.ReadFile(options.CAFile)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("%s holds no certificate", options.CAFile)
	}
	if options.CertFile != "" {
		// Read at each handshake, since it is rotated.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, err := tls.LoadX509KeyPair(options.CertFile, options.KeyFile)
			return &certificate, err
		}
	}
	return credentials.NewTLS(config), nil
}

func asTenant(name string) grpc.UnaryClientInterceptor {
	return func(
		ctx context.Context, method string, request, reply any, channel *grpc.ClientConn,
		invoke grpc.UnaryInvoker, options ...grpc.CallOption,
	) error {
		ctx = metadata.AppendToOutgoingContext(ctx, "x-tenant-id", name)
		return invoke(ctx, method, request, reply, channel, options...)
	}
}

// bearer sends the token of a file. In a mesh the channel is plaintext, and the mesh encrypts.
type bearer struct {
	file   string
	secure bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := os.ReadFile(b.file)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(token))}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.secure }
