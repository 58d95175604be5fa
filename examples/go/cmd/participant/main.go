// Command participant creates participants, reads quotas and checks health. It prints a line of
// JSON for each call.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/callers"
	pb "example.com/callers/gen/participantgateway/v1"
)

type arguments struct {
	callers.Options
	configFile, instance, contact, role, name, clientToken, service string
	timeout, every, cancelAfter                                     time.Duration
	calls                                                           int
	gzip                                                            bool
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) < 2 {
		return fmt.Errorf("usage: participant create|quota|health [flags]")
	}
	args, err := parse(os.Args[2:])
	if err != nil {
		return err
	}
	channel, err := callers.Dial(args.Options)
	if err != nil {
		return err
	}
	defer channel.Close()
	switch os.Args[1] {
	case "create":
		return createAll(channel, args)
	case "quota":
		return quota(channel, args)
	case "health":
		return health(channel, args)
	default:
		return fmt.Errorf("unknown command %q: expected create, quota or health", os.Args[1])
	}
}

func parse(texts []string) (arguments, error) {
	var args arguments
	flags := flag.NewFlagSet("participant", flag.ExitOnError)
	flags.StringVar(&args.Target, "target", "127.0.0.1:50051", "the gateway")
	flags.StringVar(&args.configFile, "service-config", "../service-config.json", "the shared file")
	flags.StringVar(&args.Tenant, "tenant", "", "identity by header")
	flags.StringVar(&args.TokenFile, "token-file", "", "identity by bearer token")
	flags.StringVar(&args.CAFile, "ca", "", "CAs of the gateway: TLS")
	flags.StringVar(&args.CertFile, "cert", "", "identity by client certificate")
	flags.StringVar(&args.KeyFile, "key", "", "the certificate's key")
	flags.StringVar(&args.instance, "instance", "demo", "the Connect instance")
	flags.StringVar(&args.contact, "contact", "contact-1", "the contact")
	flags.StringVar(&args.role, "role", "CUSTOM_BOT", "CUSTOM_BOT or CUSTOMER")
	flags.StringVar(&args.name, "name", "Bot", "the display name")
	flags.StringVar(&args.clientToken, "client-token", "", "the idempotency key; absent: a new one")
	flags.StringVar(&args.service, "service", "", "whose health; absent: the whole gateway's")
	timeout := flags.Int("timeout-ms", 5000, "a call's deadline")
	every := flags.Int("every-ms", 0, "the time between two starts")
	cancelAfter := flags.Int("cancel-after-ms", 0, "give the calls up after that time")
	flags.IntVar(&args.calls, "calls", 1, "how many calls")
	flags.BoolVar(&args.gzip, "gzip", false, "compress the requests")
	if err := flags.Parse(texts); err != nil {
		return args, err
	}
	args.timeout = time.Duration(*timeout) * time.Millisecond
	args.every = time.Duration(*every) * time.Millisecond
	args.cancelAfter = time.Duration(*cancelAfter) * time.Millisecond
	if args.clientToken == "" {
		args.clientToken = callers.NewClientToken()
	}
	config, err := os.ReadFile(args.configFile)
	args.ServiceConfig = string(config)
	return args, err
}

func createAll(channel *grpc.ClientConn, args arguments) error {
	ctx := context.Background()
	if args.cancelAfter > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		time.AfterFunc(args.cancelAfter, cancel)
	}
	var calls sync.WaitGroup
	for number := range args.calls {
		calls.Go(func() { emit(create(ctx, channel, args, number)) })
		time.Sleep(args.every)
	}
	calls.Wait()
	return nil
}

func create(ctx context.Context, channel *grpc.ClientConn, args arguments, number int) map[string]any {
	token := args.clientToken
	if args.calls > 1 {
		token += "-" + strconv.Itoa(number)
	}
	request := &pb.CreateParticipantRequest{
		InstanceId:  args.instance,
		ContactId:   args.contact,
		ClientToken: token,
		ParticipantDetails: &pb.ParticipantDetails{
			ParticipantRole: pb.ParticipantRole(pb.ParticipantRole_value["PARTICIPANT_ROLE_"+args.role]),
			DisplayName:     args.name,
		},
	}
	var options []grpc.CallOption
	if args.gzip {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	participant, err := callers.Create(ctx, channel, request, args.timeout, options...)
	if err != nil {
		line := judged(err)
		line["call"], line["remaining"] = number, remaining(participant.Trailer)
		return line
	}
	return map[string]any{
		"call":           number,
		"verdict":        "done",
		"participant_id": participant.GetParticipantId(),
		"replayed":       participant.GetReplayed(),
		"request_id":     strings.Join(participant.Header.Get("x-request-id"), ""),
		"remaining":      remaining(participant.Header),
	}
}

func quota(channel *grpc.ClientConn, args arguments) error {
	ctx, cancel := context.WithTimeout(context.Background(), args.timeout)
	defer cancel()
	client := pb.NewQuotaServiceClient(channel)
	quota, err := client.GetQuota(ctx, &pb.GetQuotaRequest{InstanceId: args.instance})
	if err != nil {
		emit(judged(err))
		return nil
	}
	emit(map[string]any{
		"verdict": "done", "rate_per_second": quota.GetRatePerSecond(), "burst": quota.GetBurst(),
		"remaining": quota.GetRemaining(), "in_flight_limit": quota.GetInFlightLimit(),
	})
	return nil
}

func health(channel *grpc.ClientConn, args arguments) error {
	ctx, cancel := context.WithTimeout(context.Background(), args.timeout)
	defer cancel()
	client := healthpb.NewHealthClient(channel)
	var options []grpc.CallOption
	if args.gzip {
		options = append(options, grpc.UseCompressor(gzip.Name))
	}
	answer, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: args.service}, options...)
	if err != nil {
		emit(judged(err))
		return nil
	}
	emit(map[string]any{"verdict": "done", "health": answer.GetStatus().String()})
	return nil
}

func judged(err error) map[string]any {
	verdict := callers.Judge(err)
	return map[string]any{
		"verdict": verdict.Action, "delay_ms": verdict.Delay.Milliseconds(),
		"code": code.Code(verdict.Code).String(), "reason": verdict.Reason,
		"request_id": verdict.RequestID, "fields": verdict.Fields,
		"message": status.Convert(err).Message(),
	}
}

// remaining is the calls that the tenant's rate admits now, as the answer's metadata has it.
func remaining(answer metadata.MD) any {
	number, err := strconv.Atoi(strings.Join(answer.Get("ratelimit-remaining"), ""))
	if err != nil {
		return nil
	}
	return number
}

var output sync.Mutex

func emit(line map[string]any) {
	output.Lock()
	defer output.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(line)
}
