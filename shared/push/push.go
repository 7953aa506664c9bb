// Package push sends messages to the connections of a WebSocket API of API Gateway.
package push

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	api "github.com/aws/aws-sdk-go-v2/service/apigatewaymanagementapi"
	"github.com/aws/aws-sdk-go-v2/service/apigatewaymanagementapi/types"

	"muster/shared/channel"
)

// Pusher is the channel.Pusher on AWS.
type Pusher struct{ client *api.Client }

// New makes a Pusher for the WebSocket API that is reached at url (https://…/stage).
func New(sdk aws.Config, url string) *Pusher {
	return &Pusher{api.NewFromConfig(sdk, func(o *api.Options) { o.BaseEndpoint = &url })}
}

// Push implements channel.Pusher.
func (p *Pusher) Push(ctx context.Context, connectionID string, message []byte) error {
	_, err := p.client.PostToConnection(ctx, &api.PostToConnectionInput{ConnectionId: &connectionID, Data: message})
	if gone(err) {
		return channel.ErrGone
	}
	if err != nil {
		return fmt.Errorf("push to connection %s: %w", connectionID, err)
	}
	return nil
}

// Close implements channel.Pusher. What is said last may be lost on a connection that takes nothing.
func (p *Pusher) Close(ctx context.Context, connectionID string, last []byte) error {
	_ = p.Push(ctx, connectionID, last)
	_, err := p.client.DeleteConnection(ctx, &api.DeleteConnectionInput{ConnectionId: &connectionID})
	if err != nil && !gone(err) {
		return fmt.Errorf("close connection %s: %w", connectionID, err)
	}
	return nil
}

func gone(err error) bool {
	var gone *types.GoneException
	return errors.As(err, &gone)
}
