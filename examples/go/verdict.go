package callers

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Action is what a caller does about an error.
type Action string

const (
	// SlowDown: a limit refused the call. Start no new calls for the delay, then repeat this one.
	SlowDown Action = "slow_down"
	// RetryAfter: repeat the call after the delay, with the same client_token.
	RetryAfter Action = "retry_after"
	// NewToken: fetch a new bearer token, then repeat the call with the same client_token.
	NewToken Action = "new_token"
	// Never: a repeat would fail alike. Report the reason and the request id.
	Never Action = "never"
)

// unhinted is the delay where the error names none: the gateway was not reached.
const unhinted = time.Second

// Verdict is an error as a caller sees it.
type Verdict struct {
	Action Action
	// Delay goes with SlowDown and RetryAfter.
	Delay time.Duration
	Code  codes.Code
	// Reason is the gateway's; empty where the status is the library's own.
	Reason    string
	RequestID string
	// Fields are those that break a rule.
	Fields []string
}

// Judge reads an error of a call that had a client_token.
func Judge(err error) Verdict {
	failed := status.Convert(err)
	verdict := Verdict{Action: Never, Code: failed.Code(), Fields: []string{}}
	var refusal string
	var retry *errdetails.RetryInfo
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			verdict.Reason, refusal = detail.GetReason(), detail.GetMetadata()["refusal"]
		case *errdetails.RequestInfo:
			verdict.RequestID = detail.GetRequestId()
		case *errdetails.RetryInfo:
			retry = detail
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				verdict.Fields = append(verdict.Fields, violation.GetField())
			}
		}
	}
	switch {
	case retry != nil && failed.Code() == codes.ResourceExhausted:
		verdict.Action, verdict.Delay = SlowDown, retry.GetRetryDelay().AsDuration()
	case retry != nil:
		verdict.Action, verdict.Delay = RetryAfter, retry.GetRetryDelay().AsDuration()
	case refusal == "expired" || refusal == "not_yet_valid":
		verdict.Action = NewToken
	case verdict.Reason == "" && isPassing(failed.Code()):
		verdict.Action, verdict.Delay = RetryAfter, unhinted
	}
	return verdict
}

// isPassing tells which of the library's own statuses a repeat may mend.
func isPassing(code codes.Code) bool {
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}
