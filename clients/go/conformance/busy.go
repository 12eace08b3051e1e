package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	docpreview "github.com/docpreview/docpreview-gateway/clients/go"
	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	busyGets     = 20
	busyCreates  = 5
	busyDeadline = 10 * time.Second
)

type busyResult struct {
	Watches   int     `json:"watches"`
	Gets      int     `json:"gets"`
	Creates   int     `json:"creates"`
	GetMS     float64 `json:"get_ms"`
	IdleGetMS float64 `json:"idle_get_ms"`
}

// busy measures other calls beside many watches and waits of one client.
func busy(ctx context.Context, client *docpreview.Client, with arguments) (*busyResult, error) {
	_, idle := gets(ctx, client, with)
	begun, cancel := context.WithCancel(ctx)
	var streams sync.WaitGroup
	defer streams.Wait()
	defer cancel()
	first := make(chan error, with.Watches)
	for range with.Watches {
		streams.Add(1)
		go func() {
			defer streams.Done()
			heard := false
			for _, err := range client.Watch(begun, &docpreviewv1.WatchPreviewJobRequest{Bucket: with.Bucket, JobId: with.JobID}) {
				if !heard {
					first <- err
				}
				heard = true
			}
		}()
	}
	for range with.Waits {
		streams.Add(1)
		go func() {
			defer streams.Done()
			_, _ = client.Wait(begun, &docpreviewv1.WaitPreviewJobRequest{
				Bucket: with.Bucket, JobId: with.JobID, Timeout: durationpb.New(5 * time.Minute),
			})
		}()
	}
	result := &busyResult{IdleGetMS: idle}
	for range with.Watches {
		select {
		case err := <-first:
			if err != nil {
				return nil, err
			}
			result.Watches++
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d watches got a message", result.Watches, with.Watches)
		}
	}
	result.Gets, result.GetMS = gets(ctx, client, with)
	for range busyCreates {
		if within(ctx, func(ctx context.Context) error {
			_, err := client.Create(ctx, createRequest(with))
			return err
		}) == nil {
			result.Creates++
		}
	}
	return result, nil
}

// gets reads the job one time after the other, and returns how many times that succeeded and the median in milliseconds.
func gets(ctx context.Context, client *docpreview.Client, with arguments) (succeeded int, median float64) {
	var took []float64
	for range busyGets {
		begin := time.Now()
		err := within(ctx, func(ctx context.Context) error {
			_, err := client.Get(ctx, &docpreviewv1.GetPreviewJobRequest{Bucket: with.Bucket, JobId: with.JobID})
			return err
		})
		took = append(took, float64(time.Since(begin).Microseconds())/1000)
		if err == nil {
			succeeded++
		}
	}
	slices.Sort(took)
	return succeeded, took[len(took)/2]
}

func within(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, busyDeadline)
	defer cancel()
	return call(ctx)
}
