package main

import (
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/crimux/crimux/backends"
)

// hopEnv has this program be a proxy at the socket that it names that does
// nothing but hand frames on to the socket of hopToEnv: what a second gRPC hop
// costs whatever it is for. What crimux adds beyond is its own.
const (
	hopEnv   = "CRIMUX_BENCH_HOP"
	hopToEnv = "CRIMUX_BENCH_HOP_TO"
)

// serveHop hands calls on until the process is killed.
func serveHop(socket string) error {
	conn, err := grpc.NewClient("unix://"+os.Getenv(hopToEnv), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithInitialWindowSize(4<<20), grpc.WithInitialConnWindowSize(4<<20),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(backends.NewCodec()), grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(backends.NewCodec()), grpc.MaxSendMsgSize(maxMessage),
		grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error { return handOn(conn, ss) }))
	return s.Serve(l)
}

// handOn carries out one unary call.
func handOn(conn *grpc.ClientConn, ss grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(ss)
	req, answer := new(backends.Frame), new(backends.Frame)
	if err := ss.RecvMsg(req); err != nil {
		return err
	}
	defer req.Free()
	if err := conn.Invoke(ss.Context(), full, req, answer); err != nil {
		return err
	}
	defer answer.Free()
	return ss.SendMsg(answer)
}
