// Command createandwatch creates a preview job, follows it to its end and prints the addresses of its pages:
//
//	go run ./examples/createandwatch -target dns:///docpreview:50051 docs-1250000000 slides/a.pptx 'previews/a/${Number}.jpg'
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
	"time"

	docpreview "github.com/docpreview/docpreview-gateway/clients/go"
	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
)

func main() {
	log.SetFlags(0)
	target := flag.String("target", "127.0.0.1:50051", "address of the gateway")
	flag.Parse()
	if flag.NArg() != 3 {
		log.Fatal("usage: createandwatch [-target TARGET] BUCKET INPUT_OBJECT OUTPUT_OBJECT")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *target, flag.Arg(0), flag.Arg(1), flag.Arg(2)); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, target, bucket, input, output string) error {
	client, err := docpreview.New(target, docpreview.WithUserAgent("createandwatch"))
	if err != nil {
		return err
	}
	defer client.Close()
	request := &docpreviewv1.CreatePreviewJobRequest{
		Bucket:      bucket,
		InputObject: input,
		Output:      &docpreviewv1.ObjectLocation{Object: output},
		RequestId:   docpreview.NewRequestID(), // creating is safe to repeat, and repeated
	}
	for job, err := range client.CreateAndWatch(ctx, request, 10*time.Minute) {
		if err != nil {
			return err
		}
		log.Println(job.GetJobId(), job.GetState())
		for _, page := range job.GetResult().GetPages() {
			log.Println(page.GetPageNumber(), page.GetUrl())
		}
	}
	return nil
}
